"""The frozen prefix, run once."""

from transfer_jax.features.cache import FeatureCache
from transfer_jax.features.extraction import Extraction, Layout, Pieces, extract
from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.prefix import in_slices, make_prefix, prefix_arrays, row_shapes
from transfer_jax.features.storage import Storage, decode
from transfer_jax.features.store import FeatureBudgetError, FeatureStore
from transfer_jax.features.tiers import DeviceFeatures, Tier, choose_tier

__all__ = [
    "CorruptFeaturesError",
    "DeviceFeatures",
    "Extraction",
    "FeatureBudgetError",
    "FeatureCache",
    "FeatureKey",
    "FeatureStore",
    "Layout",
    "Manifest",
    "Pieces",
    "Storage",
    "Tier",
    "choose_tier",
    "decode",
    "extract",
    "in_slices",
    "make_prefix",
    "prefix_arrays",
    "row_shapes",
]
