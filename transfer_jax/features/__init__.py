"""The frozen prefix, run once."""

from transfer_jax.features.cache import Extraction, FeatureCache, extract
from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.prefix import make_prefix, prefix_arrays

__all__ = [
    "CorruptFeaturesError",
    "Extraction",
    "FeatureCache",
    "FeatureKey",
    "Manifest",
    "extract",
    "make_prefix",
    "prefix_arrays",
]
