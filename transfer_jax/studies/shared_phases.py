"""The phases that trials have in common, trained once.

The arms of a study differ in their last phase. With the same seed, all phases before it, such as the one that
trains the new head, are bit-identical. They are trained as a run of their own, and each trial continues from
the checkpoint of that run. Its results and times are those of a run that trains all phases itself.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

from transfer_jax.config import TrainConfig
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.report.progress import Progress
from transfer_jax.runs import fit
from transfer_jax.runs.copied_phases import copy_phases
from transfer_jax.storage import workdir_files
from transfer_jax.storage.file_lock import file_lock


def shared_phases_of(config: TrainConfig) -> TrainConfig | None:
    """Returns the config of a run of all phases but the last.

    Returns None if there is only one phase, or if the learning rates of a phase depend on the whole schedule.
    """
    phases = config.schedule.phases[:-1]
    if not phases or any(phase.clock != "phase" for phase in phases):
        return None
    return dataclasses.replace(config, schedule=Schedule(phases), score_training=False, score_test=False)


def copy_shared_phases(config: TrainConfig, workdir: Path, shared: Path, progress: Progress) -> None:
    """Copies the phases that trials have in common into the workdir of a new trial.

    The phases are trained first if no trial has needed them yet. A trial that has already started is left
    unchanged.

    Args:
        config: The config of the trial.
        workdir: The workdir of the trial.
        shared: The folder with the runs of all shared phases.
        progress: The receiver of progress reports.
    """
    shared_config = shared_phases_of(config)
    if shared_config is None or (workdir / workdir_files.CONFIG).exists():
        return
    source_run = shared / _digest(shared_config)
    source_run.mkdir(parents=True, exist_ok=True)
    with file_lock(shared / f".{source_run.name}"):  # Waits for a worker that trains the same phases.
        fit(shared_config, source_run, progress=progress)
    copy_phases(source_run, workdir)  # An interrupted copy is repeated: the trial has no config yet.


def _digest(config: TrainConfig) -> str:
    """Returns a name for a config that does not depend on the feature folder or the number of threads."""
    same = dataclasses.replace(config, feature_dir=None, threads=1)
    return hashlib.sha256(json.dumps(same.to_json(), sort_keys=True).encode()).hexdigest()[:20]
