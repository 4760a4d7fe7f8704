"""The config of a run."""

import dataclasses
from types import MappingProxyType
from typing import Any

from transfer_jax.config.cache_config import CacheConfig
from transfer_jax.config.compute_config import ComputeConfig
from transfer_jax.config.data_config import DataConfig
from transfer_jax.config.logging_config import LoggingConfig
from transfer_jax.config.model_config import ModelConfig
from transfer_jax.config.optimization_config import OptimizationConfig
from transfer_jax.data.augmentation import Augmentation
from transfer_jax.fields import to_json
from transfer_jax.former_names import FIELDS, with_former_fields
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.python_object import PythonObject
from transfer_jax.freezing.schedule import Schedule

GROUPS = MappingProxyType(
    {
        "data": DataConfig,
        "model": ModelConfig,
        "optimization": OptimizationConfig,
        "compute": ComputeConfig,
        "cache": CacheConfig,
        "logging": LoggingConfig,
    }
)
"""The groups of fields, by name."""


def groups() -> dict[str, tuple[str, ...]]:
    """Returns the names of the fields of `TrainConfig`, by group."""
    return {name: tuple(field.name for field in dataclasses.fields(group)) for name, group in GROUPS.items()}


# A dataclass collects fields from its last base to its first: `images` comes first, `trackers` last.
@with_former_fields
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(LoggingConfig, CacheConfig, ComputeConfig, OptimizationConfig, ModelConfig, DataConfig):
    """Everything that decides the result of a run.

    The fields are those of six groups: `DataConfig`, `ModelConfig`, `OptimizationConfig`, `ComputeConfig`,
    `CacheConfig` and `LoggingConfig`. They are flat here, in JSON and on the command line.
    """

    def __post_init__(self) -> None:
        for group in GROUPS.values():
            group.__post_init__(self)
        if self.mixes:
            for phase in self.schedule.phases:
                if phase.augment and (phase.views or phase.cache == "require"):
                    raise ValueError(
                        f"phase {phase.name!r} uses a cache, but mixup and cutmix need live images: "
                        "set cache='off' and views=0, or turn them off"
                    )

    @property
    def stored_precision(self) -> str:
        """The precision in which cached features are stored."""
        own = self.prefix_precision not in ("auto", "int8")
        computed = self.prefix_precision if own else self.precision
        return computed if self.feature_precision == "auto" else self.feature_precision

    @property
    def objects(self) -> tuple[PythonObject, ...]:
        """The objects of Python among the values: optimizers, learning-rate schedules and the loss."""
        loss = (self.loss,) if isinstance(self.loss, PythonObject) else ()
        return (*loss, *(each for phase in self.schedule.phases for each in phase.objects))

    def to_json(self) -> dict[str, Any]:
        """Returns the config as JSON values, without groups."""
        return to_json(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainConfig":
        """Returns the config from the result of `to_json`.

        Raises:
            KeyError: If the schedule or the augmentation is missing.
            TypeError: If a field is unknown or missing.
            ValueError: If a value is invalid.
        """
        if "task" not in values and values.get("loss") == "cross_entropy":  # The default of earlier versions.
            values = {**values, "loss": "auto"}
        values = {FIELDS.get(name, name): value for name, value in values.items()}
        phases = tuple(Phase(**phase) for phase in values["schedule"]["phases"])
        augmentation = Augmentation(**_with_tuples(values["augmentation"]))
        return cls(**{**_with_tuples(values), "schedule": Schedule(phases), "augmentation": augmentation})


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Returns values with tuples in place of JSON's lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
