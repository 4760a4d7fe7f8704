"""A process that works on a study: it claims a trial, trains it, and claims the next, until none is left.

Workers know of each other through the study's folder alone, so they may run wherever that can be reached.
"""

import dataclasses
import itertools
import json
import os
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from filelock import FileLock, Timeout

from transfer_jax.config import TrainConfig
from transfer_jax.features import FeatureCacheDir
from transfer_jax.models import Classifier
from transfer_jax.report.progress import Progress
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.studies.shared_phases import SHARED_PHASES
from transfer_jax.studies.study import FEATURES, TRIALS, Study, Trial, read_study
from transfer_jax.studies.trial import ROW, run_trial
from transfer_jax.training.phase_split import split_schedule
from transfer_jax.training.run import abstract_model

ERROR, CLAIM = "error.json", "claim.json"
"""In the folder of a trial: why it failed, and which worker was the last to work on it."""
_LOCKS = ".locks"

Boundaries = tuple[str | None, ...]


def work(folder: Path, name: str, progress: Progress) -> int:
    """Works on the trials of a study that are neither finished nor failed, and that nobody else works on.

    Args:
        folder: The folder of the study.
        name: What to call this worker in claims.
        progress: Where to report to.

    Returns:
        How many trials it finished.
    """
    study, count = read_study(folder), 0
    ordered = in_order(study)
    arms = {arm: list(trials) for arm, trials in itertools.groupby(ordered, lambda each: each[0].arm)}
    for shared in (False, True):  # First arms of its own, so that each is compiled once; then what is left.
        for arm, trials in arms.items():
            with _locked(folder, arm) as own:
                for trial, _ in trials if own or shared else ():
                    with _locked(folder, trial.name) as mine:
                        if mine and _todo(trial, folder):
                            count += _attempt(study, trial, folder, name, progress)
                            drop_features(ordered, folder)
            jax.clear_caches()  # Each program has memory maps, of which there may be only so many.
    return count


def in_order(study: Study) -> list[tuple[Trial, Boundaries]]:
    """The trials, with the boundaries of their phases, so that those which share features are neighbours.

    The longest come first: the lower the boundary, the more there is to train.
    """
    images = list(dict.fromkeys(arm.config.images for arm in study.arms))
    models: dict[tuple, Classifier] = {}
    found: dict[str, tuple[tuple[int, int], Boundaries]] = {}
    for arm in study.arms:
        config = arm.config
        key = (config.model, config.image_size, config.taps, config.hidden)
        if key not in models:
            models[key] = abstract_model(config, 2)
        parts = split_schedule(config.schedule, models[key], steps_per_epoch=1)
        boundaries = tuple(each.boundary for each in parts)
        blocks = models[key].backbone.block_names
        lowest = min(-1 if each is None else blocks.index(each) for each in boundaries)
        found[arm.name] = (images.index(config.images), lowest), boundaries
    trials = sorted(study.trials, key=lambda trial: found[trial.arm][0])
    return [(trial, found[trial.arm][1]) for trial in trials]


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[bool]:
    """Keeps other workers from an arm or a trial, and yields whether none of them has it."""
    (folder / _LOCKS).mkdir(exist_ok=True)
    lock = FileLock(folder / _LOCKS / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _todo(trial: Trial, folder: Path) -> bool:
    own = folder / TRIALS / trial.name
    return not (own / ROW).exists() and not (own / ERROR).exists()


def _attempt(study: Study, trial: Trial, folder: Path, name: str, progress: Progress) -> bool:
    """Trains a trial, and returns whether it is finished; an error is written down."""
    own = folder / TRIALS / trial.name
    own.mkdir(parents=True, exist_ok=True)
    write_text(own / CLAIM, json.dumps({"worker": name}))
    progress.say(trial.name)
    shared = dataclasses.replace(trial, config=_with_shared_features(trial.config, folder))
    try:
        run_trial(shared, own, folder / SHARED_PHASES, progress, keep=study.keep)
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        fail(own, line, traceback.format_exc())
        progress.say(f"{trial.name} failed: {line}")
        return False
    return True


def fail(own: Path, error: str, trace: str = "") -> None:
    """Writes down why a trial failed; it is not tried again until that is forgotten."""
    write_text(own / ERROR, json.dumps({"error": error, "traceback": trace}, indent=1))


def _with_shared_features(config: TrainConfig, folder: Path) -> TrainConfig:
    """The config with the features of its images in the study's folder, unless it says where."""
    threads = min(config.threads, int(os.environ.get("NPROC") or config.threads))
    place = config.feature_dir or str(folder / FEATURES / _slug(config.images))
    return dataclasses.replace(config, feature_dir=place, threads=threads)


def drop_features(ordered: Iterable[tuple[Trial, Boundaries]], folder: Path) -> None:
    """Deletes the cached features in the study's folder that no unfinished trial needs."""
    needed: dict[str, set[str | None]] = {}
    for trial, boundaries in ordered:
        wanted = needed.setdefault(trial.config.images, set())
        if not (folder / TRIALS / trial.name / ROW).exists():
            wanted |= {*boundaries}
    for images, wanted in needed.items():
        place = folder / FEATURES / _slug(images)
        if place.is_dir():
            FeatureCacheDir(place).drop_others(wanted)


def unfinished(trials: Iterable[Trial], folder: Path) -> list[Trial]:
    """The trials that have no row yet, whatever the reason."""
    return [trial for trial in trials if not (folder / TRIALS / trial.name / ROW).exists()]


def _slug(images: str) -> str:
    return re.sub(r"[^\w.-]+", "-", images).strip("-.")[-80:] or "images"
