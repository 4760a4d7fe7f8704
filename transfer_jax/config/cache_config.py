"""The fields of a config about caches of features, and of images from object storage."""

import dataclasses
from typing import Literal

from transfer_jax.config.checks import check_choices, check_ranges
from transfer_jax.fields import convert_fields

FeaturePrecision = Literal["auto", "float16", "bfloat16", "int8"]
FeatureTier = Literal["auto", "disk", "memory", "device"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The folder, the size and the precision of cached features, and the size of the cache of images.

    Attributes:
        feature_dir: Folder of cached features, which several runs may share; None puts them into the workdir.
        shared_features: Whether a cache holds the features of all training and validation images, computed
            from the images themselves, so that runs with other splits share it, in any order.
        feature_precision: The precision in which cached features are stored: `auto` takes the one they are
            computed in; `float16`, `bfloat16` or `int8` take less space, and their error is logged.
        feature_gigabytes: Disk space for all caches in the folder, in units of 10^9 bytes; the least
            recently used caches are dropped.
        feature_tier: The storage of cached features while a phase trains on them: `disk`, memory-mapped, or
            in `memory`, or on the `device`; `auto` takes the fastest one with enough space.
        object_gigabytes: Disk space on each machine for images from object storage, in units of 10^9 bytes;
            the least recently used ones are deleted. None takes `TRANSFER_JAX_OBJECT_GIGABYTES`, or 20.
    """

    feature_dir: str | None = None
    shared_features: bool = False
    feature_precision: FeaturePrecision = "auto"
    feature_gigabytes: float = 50.0
    feature_tier: FeatureTier = "auto"
    object_gigabytes: float | None = None

    def __post_init__(self) -> None:
        convert_fields(self, CacheConfig)
        check_choices(self, feature_precision=FeaturePrecision, feature_tier=FeatureTier)
        check_ranges(self, feature_gigabytes="more than 0", object_gigabytes="at least 0")
