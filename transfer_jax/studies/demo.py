"""The three ways of the founding text on the same photographs and the same split."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from transfer_jax.config import TrainConfig, load_config
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.report.progress import Progress
from transfer_jax.runs import Result, fit
from transfer_jax.storage import workdir_files

WAYS = {
    "way one": "elpv_feature_extraction",
    "way two": "elpv_frozen_base",
    "five steps": "elpv_five_steps",
}
"""What each way is called, and the experiment in `configs/` that is it."""

COLUMNS = (
    "phase",
    "trainable",
    "images/s",
    "compile\ns",
    "extract\ns",
    "train\ns",
    "accuracy",
    "balanced",
)


def demo(workdir: Path, *, quick: bool, seed: int, progress: Progress) -> Iterator[tuple[str, Result]]:
    """Runs each way, or reads it where it is done, and yields its name and result.

    Args:
        workdir: Folder of the three runs, which share one folder of features.
        quick: Trains a few epochs on small images, to see that all works.
        seed: Seed of the split and of the training.
        progress: Where to report to.
    """
    for name, experiment in WAYS.items():
        config = load_config(experiment)
        config = dataclasses.replace(
            shorter(config) if quick else config, seed=seed, feature_dir=str(workdir / workdir_files.FEATURES)
        )
        progress.say(f"[bold]{name}[/bold]: {config.schedule}")
        yield name, fit(config, workdir / experiment, progress=progress)


QUICK_PIXELS = 128
"""Side of the images in a quick run; a third of the work."""


def shorter(config: TrainConfig) -> TrainConfig:
    """The same experiment with small images, few epochs, one view each, and only the last blocks unfrozen."""
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


def table_rows(name: str, result: Result) -> list[list[str]]:
    """A row a phase, in the order of `COLUMNS`."""
    return [
        [
            f"{name}: {phase.name}",
            f"{phase.trainable_parameters:,}",
            f"{phase.images_per_second:,.0f}",
            f"{phase.compile_seconds:.1f}",
            f"{phase.extract_seconds:.1f}",
            f"{phase.train_seconds:.1f}",
            f"{phase.metrics['accuracy']:.1%}",
            f"{phase.metrics['balanced_accuracy']:.1%}",
        ]
        for phase in result.phases
    ]
