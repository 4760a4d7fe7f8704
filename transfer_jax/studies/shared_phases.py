"""What trials have in common before the last phase of their schedules, trained once.

Arms of a study differ in their last phase; with one seed, the phases before it, such as the one that trains
the new head, are the same to the last bit. They are a run of their own, and a trial goes on from its
checkpoint: its results and times are those of a run that had trained them itself.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

from filelock import FileLock

from transfer_jax.config import TrainConfig
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.report.progress import Progress
from transfer_jax.runs import fit
from transfer_jax.storage import workdir_files

SHARED_PHASES = "beginnings"
_COPIED = (workdir_files.CHECKPOINTS, workdir_files.FREEZE_RECORDS, workdir_files.METRICS)


def shared_phases_of(config: TrainConfig) -> TrainConfig | None:
    """The run of all phases but the last; None where there are none, or their rates depend on the last."""
    phases = config.schedule.phases[:-1]
    if not phases or any(phase.clock != "phase" for phase in phases):
        return None
    return dataclasses.replace(config, schedule=Schedule(phases), score_training=False)


def start_from_shared(config: TrainConfig, folder: Path, shared: Path, progress: Progress) -> None:
    """Gives a trial that has not begun the phases that others have trained, or trains them for all.

    Args:
        config: The trial's config.
        folder: Its folder.
        shared: The folder of all beginnings.
        progress: Where to report to.
    """
    beginning = shared_phases_of(config)
    if beginning is None or (folder / workdir_files.CONFIG).exists():
        return
    place = shared / _digest(beginning)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(shared / f".{place.name}"):  # Another worker that trains the same is waited for.
        fit(beginning, place, progress=progress)
    for name in _COPIED:  # Until the trial has a config, a copy that was cut off is made again.
        source, target = place / name, folder / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)


def _digest(config: TrainConfig) -> str:
    """Names a beginning, wherever its features are and however many threads read its images."""
    same = dataclasses.replace(config, feature_dir=None, threads=1)
    return hashlib.sha256(json.dumps(same.to_json(), sort_keys=True).encode()).hexdigest()[:20]
