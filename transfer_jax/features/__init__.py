"""The frozen prefix, run once."""

from transfer_jax.features.cache import FeatureCache
from transfer_jax.features.extraction import Extraction, Layout, extract
from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.prefix import make_prefix, prefix_arrays, row_shapes
from transfer_jax.features.storage import Storage, decode
from transfer_jax.features.store import FeatureBudgetError, FeatureStore

__all__ = [
    "CorruptFeaturesError",
    "Extraction",
    "FeatureBudgetError",
    "FeatureCache",
    "FeatureKey",
    "FeatureStore",
    "Layout",
    "Manifest",
    "Storage",
    "decode",
    "extract",
    "make_prefix",
    "prefix_arrays",
    "row_shapes",
]
