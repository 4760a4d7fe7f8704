"""Changes of the config of a run that has started: which are possible, and the record of earlier configs."""

import dataclasses
import json
from pathlib import Path

from transfer_jax.config import TrainConfig
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.workdir import differences, listed
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.training.run import Run

_FIXED = (
    "accumulate",
    "batch_size",
    "crop_fraction",
    "ema_decay",
    "hidden",
    "image_size",
    "images_per_class",
    "keep_together",
    "model",
    "reinitialize",
    "seed",
    "split_seed",
    "taps",
    "test_fraction",
    "val_fraction",
)
"""Fields that trained steps, or the numbers of the steps, depend on. `RunStart` checks images and weights."""
_ADJUSTABLE = (
    "epochs",
    "learning_rate",
    "shape",
    "clock",
    "warmup",
    "first_freeze",
    "layer_decay",
    "decay_start",
    "groups",
    "weight_decay",
    "l2_sp",
    "l2_head",
    "group_lasso",
    "keep_epoch",
    "patience",
)
"""Fields of a phase that may change in the middle of it."""


def check_changes(
    started: TrainConfig, given: TrainConfig, position: RunProgress, workdir: Path, *, force: bool
) -> None:
    """Checks that a run that has started can continue with another config.

    A finished run cannot. Any other run keeps its network, its images and the phases that are finished;
    everything that only affects the steps to come may change. If nothing is trained, everything may change.
    Images and weights may be in another place if their hashes are recorded, which `check_start` compares.

    Args:
        started: The config of the run so far.
        given: The other config.
        position: The progress of the run.
        workdir: The run's folder, for messages.
        force: Whether any change is accepted.

    Raises:
        ValueError: If a change is impossible; the message names the fields.
    """
    changes = differences(started, given, moved=bool(position.start))
    if not changes:
        return
    if position.phase >= len(started.schedule.phases):
        raise ValueError(
            f"the run in {workdir} is finished, and cannot be trained with another config: "
            f"{listed(changes)}. Use another workdir."
        )
    if not force:
        raise ValueError(
            f"{workdir} was started with another config: {listed(changes)}. "
            "Use another workdir, or resume anyway with --force-config."
        )
    if position == RunProgress():
        return
    contradictions = [change for change in changes if _contradicts(change.split(" was ")[0], position)]
    if contradictions:
        raise ValueError(
            f"the run in {workdir} has already trained with another config, which cannot be changed: "
            f"{listed(contradictions)}. Use another workdir."
        )
    if len(given.schedule.phases) <= position.phase:
        raise ValueError(
            f"{position.phase} phases of the run in {workdir} are finished, and the schedule has only "
            f"{len(given.schedule.phases)}; add a phase, or use another workdir"
        )


def check_objects(config: TrainConfig, finished_phases: int) -> None:
    """Checks that the optimizers, schedules and losses that are still needed are present.

    A config in JSON has only the descriptions of those that are objects of Python.

    Args:
        config: The config.
        finished_phases: Number of phases that are not trained again.

    Raises:
        MissingObjectError: If one is missing; the message says how to give it.
    """
    needed = dataclasses.replace(config, schedule=config.schedule.phases[finished_phases:])
    for each in needed.objects:
        _ = each.value


def check_steps(run: Run, latest: int | None, position: RunProgress) -> None:
    """Checks that the current phase of a run is not shorter than what is trained of it.

    Args:
        run: The run.
        latest: Step of its newest checkpoint; None if there is none.
        position: The progress in it.

    Raises:
        ValueError: If it is.
    """
    parts = run.parts(position.phase)
    done = (latest or 0) - sum(run.parts(index).steps for index in range(position.phase))
    if done >= parts.steps:
        raise ValueError(
            f"phase {parts.phase.name!r} has {parts.steps} steps with epochs={parts.phase.epochs}, but the "
            f"run in {run.workdir} has already trained {done}; use more epochs, or another workdir"
        )


def record_change(started: TrainConfig, given: TrainConfig, step: int | None, workdir: Path) -> None:
    """Adds the config of a run to `earlier_configs.json` if it will continue with another one.

    Args:
        started: The config of the run so far.
        given: The config that it continues with.
        step: The step that it continues from; None if nothing is trained, which records nothing.
        workdir: The run's folder.
    """
    changes = differences(started, given)
    if step is None or not changes:
        return
    path = workdir / workdir_files.EARLIER_CONFIGS
    earlier = json.loads(path.read_bytes()) if path.is_file() else []
    earlier.append({"until_step": step, "changes": changes, "config": started.to_json()})
    write_text(path, json.dumps(earlier, indent=1))


def _contradicts(field: str, position: RunProgress) -> bool:
    """Returns whether a field, such as `schedule.phases.0.epochs`, cannot change any more."""
    group, *rest = field.split(".")
    if group != "schedule":
        return group in _FIXED
    _, index, name, *_ = rest
    in_current = int(index) == position.phase and position.data is not None
    return int(index) < position.phase or (in_current and name not in _ADJUSTABLE)
