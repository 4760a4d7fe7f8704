"""The config of a run: `TrainConfig`, its groups of fields, and its files. This package imports no JAX."""

from transfer_jax.config.cache_config import CacheConfig, FeaturePrecision, FeatureTier
from transfer_jax.config.compute_config import (
    BatchNorm,
    ComputeConfig,
    Precision,
    PrefixPrecision,
    StrategyName,
)
from transfer_jax.config.data_config import DataConfig, OnBadImage, Views
from transfer_jax.config.files import load_config, shipped_configs
from transfer_jax.config.logging_config import LoggingConfig, TrackerName
from transfer_jax.config.model_config import ModelConfig
from transfer_jax.config.optimization_config import ClassWeights, OptimizationConfig
from transfer_jax.config.train_config import GROUPS, TrainConfig, groups

__all__ = [
    "GROUPS",
    "BatchNorm",
    "CacheConfig",
    "ClassWeights",
    "ComputeConfig",
    "DataConfig",
    "FeaturePrecision",
    "FeatureTier",
    "LoggingConfig",
    "ModelConfig",
    "OnBadImage",
    "OptimizationConfig",
    "Precision",
    "PrefixPrecision",
    "StrategyName",
    "TrackerName",
    "TrainConfig",
    "Views",
    "groups",
    "load_config",
    "shipped_configs",
]
