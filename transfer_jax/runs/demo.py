"""The demo: the same photographs, with the same split, fine-tuned in three ways."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transfer_jax.config import TrainConfig, load_config
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.report.progress import Progress
from transfer_jax.runs import Result, fit
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import Metric, task_class

WAYS = MappingProxyType(
    {
        "feature extraction": "elpv_feature_extraction",
        "frozen base": "elpv_frozen_base",
        "five steps": "elpv_five_steps",
    }
)
"""The shipped config of each way, by its name."""

QUICK_PIXELS = 128
"""Height and width of the images in a quick demo; a third of the work."""

_COLUMNS = ("phase", "trainable", "images/s", "compile\ns", "extract\ns", "train\ns")
_SCORES = 2
"""Number of scores of a phase in a table."""


def run_demo(workdir: Path, *, quick: bool, seed: int, progress: Progress) -> Iterator[tuple[str, Result]]:
    """Trains each way, or reads its results if it is finished, and yields its name and its result.

    Args:
        workdir: Folder of the three runs, which share a folder of cached features.
        quick: Whether to train a few epochs on small images, to see that everything works.
        seed: Seed of the split and of the training.
        progress: Receives the progress.
    """
    for name, experiment in WAYS.items():
        config = load_config(experiment)
        config = dataclasses.replace(
            shorten(config) if quick else config,
            seed=seed,
            feature_dir=str(workdir / workdir_files.FEATURES),
        )
        progress.log(f"{name}: {config.schedule}")
        yield name, fit(config, workdir / experiment, progress=progress)


def shorten(config: TrainConfig) -> TrainConfig:
    """Returns a config with small images, few epochs, one view of each, and only the last blocks unfrozen."""
    phases = tuple(
        dataclasses.replace(
            phase,
            epochs=min(phase.epochs, 1 if not phase.cacheable else 5 if phase.augment else 20),
            views=min(phase.views, 1),
            train="top(2)" if phase.name == "top" else phase.train,
        )
        for phase in config.schedule.phases
    )
    return dataclasses.replace(config, schedule=Schedule(phases), image_size=QUICK_PIXELS)


def table_columns(result: Result) -> tuple[str, ...]:
    """Returns the titles of the columns of `table_rows`."""
    return (*_COLUMNS, *(metric.title.replace(" ", "\n") for metric in _shown(result.metrics)))


def _shown(scores: Mapping[str, Any]) -> list[Metric]:
    """Returns the scores of a table, the most important ones of the task."""
    return [metric for metric in task_class(scores).metrics if metric.of(scores) is not None][:_SCORES]


def table_rows(name: str, result: Result) -> list[list[str]]:
    """Returns a row for each phase of a run, with the columns `table_columns`.

    Args:
        name: Name of the run.
        result: Its result.
    """
    return [
        [
            f"{name}: {phase.name}",
            f"{phase.trainable_parameters:,}",
            f"{phase.images_per_second:,.0f}",
            f"{phase.compile_seconds:.1f}",
            f"{phase.extract_seconds:.1f}",
            f"{phase.train_seconds:.1f}",
            *(metric.text(metric.of(phase.metrics)) for metric in _shown(result.metrics)),
        ]
        for phase in result.phases
    ]
