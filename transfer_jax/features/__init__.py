"""Caches of features: the frozen prefix, its extraction to disk, and the placement of features."""

from transfer_jax.features.cache_dir import FeatureBudgetError, FeatureCacheDir
from transfer_jax.features.cache_features import cache_features
from transfer_jax.features.feature_cache import FeatureCache
from transfer_jax.features.manifest import CorruptFeaturesError, FeatureKey, Manifest
from transfer_jax.features.placement import DeviceFeatureCache, Tier, choose_tier
from transfer_jax.features.prefix import FeatureShapes, in_slices, make_prefix, model_inputs, prefix_arrays
from transfer_jax.features.row_format import ArrayFormat, RowFormat, decode
from transfer_jax.features.shard_order import ShardOrder
from transfer_jax.features.shard_writer import Extraction, Layout, RowBatches, RowRanges, write_shards

__all__ = [
    "ArrayFormat",
    "CorruptFeaturesError",
    "DeviceFeatureCache",
    "Extraction",
    "FeatureBudgetError",
    "FeatureCache",
    "FeatureCacheDir",
    "FeatureKey",
    "FeatureShapes",
    "Layout",
    "Manifest",
    "RowBatches",
    "RowFormat",
    "RowRanges",
    "ShardOrder",
    "Tier",
    "cache_features",
    "choose_tier",
    "decode",
    "in_slices",
    "make_prefix",
    "model_inputs",
    "prefix_arrays",
    "write_shards",
]
