"""The fields of a config about validation, checkpoints and trackers."""

import dataclasses
from typing import Literal, get_args

from transfer_jax.config.checks import check_ranges
from transfer_jax.fields import convert_fields

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """The intervals of validation, measurement and checkpoints, and the trackers of a run.

    Attributes:
        eval_every: Number of epochs between validations; 0 validates at the end of each phase only.
        score_training: Whether the training images are also scored at the end of the run, without
            augmentation.
        measure_every: Number of steps between measurements of gradients, updates and distances by depth; 0
            turns them off.
        checkpoint_seconds: Seconds between checkpoints; one is also written at the end of each phase.
        trackers: Experiment trackers to log to, in addition to the workdir: `tensorboard`, `wandb`, `mlflow`
            and `trackio`.
    """

    eval_every: int = 0
    score_training: bool = False
    measure_every: int = 0
    checkpoint_seconds: float = 30.0
    trackers: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        convert_fields(self, LoggingConfig)
        check_ranges(
            self, eval_every="at least 0", measure_every="at least 0", checkpoint_seconds="at least 0"
        )
        for tracker in self.trackers:
            if tracker not in get_args(TrackerName):
                raise ValueError(f"trackers must be among {get_args(TrackerName)}, got {tracker!r}")
