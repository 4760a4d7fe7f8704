"""The fields of a config about validation, the epoch that is kept, checkpoints and trackers."""

import dataclasses
from typing import Literal, get_args

from transfer_jax.config.checks import check_choices, check_ranges
from transfer_jax.fields import convert_fields
from transfer_jax.freezing.phase import KeepEpoch

PredictionColumns = Literal["auto", "all", "top"]
PredictionFormat = Literal["auto", "csv", "parquet"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """The epoch that is kept, the intervals of validation and checkpoints, and the trackers of a run.

    Attributes:
        keep_epoch: The epoch of each phase whose weights are kept: the `best` one by the validation images,
            or the `last` one. The best one counts only if its gain is clear, more than two standard errors:
            over the last epoch in the first phase, and over the start in a later one, which is otherwise
            undone. `auto` is `best` if there are at least 20 validation images, otherwise `last`. A phase may
            have its own `keep_epoch`.
        keep_metric: The score of the validation images that chooses the best epoch, such as `log_loss` or
            `accuracy`; by default that of the task, which is `log_loss` for classes.
        patience: Number of epochs without a better one after which a phase ends early; 0 trains all epochs.
        eval_every: Number of epochs between validations. 0 validates after each epoch if the best one is kept
            or `patience` is set, otherwise at the end of each phase only.
        score_test: Whether the test images, if there are any, are scored at the end of the run.
        score_training: Whether the training images are also scored at the end of the run, without
            augmentation.
        prediction_columns: The predictions of each image that a run writes at its end: `all`; or `top`, the
            five most probable classes and the probability of the true class. `auto` is `top` for more than
            5,000,000 predictions (images times classes) of a task with one class for each image.
        prediction_format: The format of these files: `csv` or `parquet`, which needs the package `pyarrow`.
            `auto` is `parquet` for more than 5,000,000 predictions if the package is installed.
        measure_every: Number of steps between measurements of gradients, updates and distances by depth; 0
            turns them off.
        checkpoint_seconds: Seconds between checkpoints; one is also written at the end of each phase.
        trackers: Experiment trackers to log to, in addition to the workdir: `tensorboard`, `wandb`, `mlflow`
            and `trackio`.
    """

    keep_epoch: KeepEpoch = "auto"
    keep_metric: str = ""
    patience: int = 0
    eval_every: int = 0
    score_test: bool = True
    score_training: bool = False
    prediction_columns: PredictionColumns = "auto"
    prediction_format: PredictionFormat = "auto"
    measure_every: int = 0
    checkpoint_seconds: float = 30.0
    trackers: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        convert_fields(self, LoggingConfig)
        check_choices(
            self,
            keep_epoch=KeepEpoch,
            prediction_columns=PredictionColumns,
            prediction_format=PredictionFormat,
        )
        check_ranges(
            self,
            patience="at least 0",
            eval_every="at least 0",
            measure_every="at least 0",
            checkpoint_seconds="at least 0",
        )
        for tracker in self.trackers:
            if tracker not in get_args(TrackerName):
                raise ValueError(f"trackers must be among {get_args(TrackerName)}, got {tracker!r}")
