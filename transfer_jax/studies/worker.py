"""A worker process of a study: it claims a trial, trains it, and claims the next, until none is left.

Workers communicate only through the folder of the study. They run on any machine that can access it.
"""

import dataclasses
import itertools
import json
import re
import traceback
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import jax

from transfer_jax.config import TrainConfig
from transfer_jax.features import FeatureCacheDir
from transfer_jax.models import Classifier
from transfer_jax.planning.network import abstract_model
from transfer_jax.report.progress import Progress
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.file_lock import try_file_lock
from transfer_jax.storage.file_names import file_name
from transfer_jax.studies.study import Study, Trial, read_study
from transfer_jax.studies.trial import run_trial
from transfer_jax.training.phase_split import split_schedule

Boundaries = tuple[str | None, ...]
"""The boundary of each phase of a trial; None for a phase that trains on images."""


def run_worker(folder: Path, name: str, progress: Progress) -> int:
    """Trains the pending trials of a study that no other worker has claimed.

    A trial is pending if it is not finished and has not failed.

    Args:
        folder: The folder of the study.
        name: The name of this worker in claims.
        progress: The receiver of progress reports.

    Returns:
        The number of trials that this worker finished.
    """
    study, count = read_study(folder), 0
    ordered = ordered_trials(study)
    arms = {arm: list(trials) for arm, trials in itertools.groupby(ordered, lambda each: each[0].arm)}
    # First pass: arms that no other worker has, so that each arm is compiled once. Second pass: the rest.
    for shared in (False, True):
        for arm, trials in arms.items():
            with _try_lock(folder, arm) as arm_locked:
                for trial, _ in trials if arm_locked or shared else ():
                    with _try_lock(folder, trial.name) as trial_locked:
                        if trial_locked and _is_pending(trial, folder):
                            count += _train_trial(study, trial, folder, name, progress)
                            drop_unneeded_features(ordered, folder)
            jax.clear_caches()  # Each program holds memory maps, whose number is limited.
    return count


def ordered_trials(study: Study) -> list[tuple[Trial, Boundaries]]:
    """Returns the trials with the boundaries of their phases, in the order in which workers train them.

    Trials that share features are neighbors. The lowest boundaries come first, because those trials train
    the longest.
    """
    images = list(dict.fromkeys(arm.config.images for arm in study.arms))
    models: dict[tuple, Classifier] = {}
    by_arm: dict[str, tuple[tuple[int, int], Boundaries]] = {}
    for arm in study.arms:
        config = arm.config
        key = (config.model, config.image_size, config.taps, config.hidden)
        if key not in models:
            models[key] = abstract_model(config, 2)
        parts = split_schedule(config.schedule, models[key], steps_per_epoch=1)
        boundaries = tuple(each.boundary for each in parts)
        blocks = models[key].backbone.block_names
        lowest = min(-1 if each is None else blocks.index(each) for each in boundaries)
        by_arm[arm.name] = (images.index(config.images), lowest), boundaries
    trials = sorted(study.trials, key=lambda trial: by_arm[trial.arm][0])
    return [(trial, by_arm[trial.arm][1]) for trial in trials]


def _try_lock(folder: Path, name: str) -> AbstractContextManager[bool]:
    """Tries to lock an arm or a trial, without waiting; the context has whether this worker has the lock."""
    return try_file_lock(folder / workdir_files.TRIAL_LOCKS / file_name(name))


def _is_pending(trial: Trial, folder: Path) -> bool:
    workdir = trial.workdir(folder)
    done = (workdir_files.TRIAL_ROW, workdir_files.TRIAL_ERROR)
    return not any((workdir / name).exists() for name in done)


def _train_trial(study: Study, trial: Trial, folder: Path, name: str, progress: Progress) -> bool:
    """Trains a trial and returns whether it finished; an error is recorded in its folder."""
    workdir = trial.workdir(folder)
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / workdir_files.TRIAL_CLAIM, json.dumps({"worker": name}))
    progress.log(trial.name)
    trial = dataclasses.replace(trial, config=_with_shared_features(trial.config, folder))
    try:
        run_trial(trial, workdir, folder / workdir_files.SHARED_PHASES, progress, keep=study.keep)
    except Exception as error:
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        record_failure(workdir, line, traceback.format_exc())
        progress.log(f"{trial.name} failed: {line}")
        return False
    return True


def record_failure(workdir: Path, error: str, trace: str = "") -> None:
    """Writes the error of a trial to its workdir; workers skip the trial until that file is deleted."""
    content = {"error": error, "traceback": trace}
    write_text(workdir / workdir_files.TRIAL_ERROR, json.dumps(content, indent=1))


def _with_shared_features(config: TrainConfig, folder: Path) -> TrainConfig:
    """Returns the config with its feature folder in the study's folder, unless it names another one."""
    feature_dir = config.feature_dir or str(folder / workdir_files.FEATURES / _slug(config.images))
    return dataclasses.replace(config, feature_dir=feature_dir)


def drop_unneeded_features(ordered: Iterable[tuple[Trial, Boundaries]], folder: Path) -> None:
    """Deletes the cached features in the study's folder that no unfinished trial needs."""
    needed: dict[str, set[str | None]] = {}
    for trial, boundaries in ordered:
        wanted = needed.setdefault(trial.config.images, set())
        if not (trial.workdir(folder) / workdir_files.TRIAL_ROW).exists():
            wanted |= {*boundaries}
    for images, wanted in needed.items():
        feature_dir = folder / workdir_files.FEATURES / _slug(images)
        if feature_dir.is_dir():
            FeatureCacheDir(feature_dir).drop_others(wanted)


def unfinished(trials: Iterable[Trial], folder: Path) -> list[Trial]:
    """Returns the trials that have no row yet: pending, running or failed."""
    return [trial for trial in trials if not (trial.workdir(folder) / workdir_files.TRIAL_ROW).exists()]


def _slug(images: str) -> str:
    return re.sub(r"[^\w.-]+", "-", images).strip("-.")[-80:] or "images"
