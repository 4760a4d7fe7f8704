"""The function `fit`, which trains a schedule and resumes it."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset
from transfer_jax.distributed import processes
from transfer_jax.extras import optional
from transfer_jax.fields import as_tuple
from transfer_jax.own_models import with_own_model
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.artifacts import write_plan
from transfer_jax.runs.checkpointing import read_progress
from transfer_jax.runs.config_changes import check_changes, check_objects, check_steps, record_change
from transfer_jax.runs.environment import write_environment
from transfer_jax.runs.goodput import Goodput, Trace
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.loop import Loop
from transfer_jax.runs.resolve import resolve
from transfer_jax.runs.result import PhaseResult, Result
from transfer_jax.runs.run_start import check_start
from transfer_jax.runs.workdir import NOT_MIRRORED, PLACES, claim, differences, started_config
from transfer_jax.storage import workdir_files
from transfer_jax.storage.checkpoints import Checkpoints, SavedCheckpoints
from transfer_jax.storage.file_lock import InUseError
from transfer_jax.storage.remote import local_path, pull, push
from transfer_jax.storage.workdir_lock import workdir_lock


def fit(
    config: TrainConfig | ResolvedRun,
    workdir: str | Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    profile: bool = False,
    dataset: ImageDataset | None = None,
    model: Any = None,
    command: Sequence[str] = (),
) -> Result:
    """Trains a schedule, or resumes it if an earlier call was stopped or killed.

    Ctrl-C or SIGTERM during training writes a checkpoint first. A finished run is only read; if its images or
    weights have moved, their new place is written into its config.

    Args:
        config: The config, or the result of `resolve`.
        workdir: The run's folder, which may be in object storage (`gs://…`, `s3://…`). It is created if it
            does not exist.
        progress: Receives the progress of the run; None shows none.
        force: Whether to resume an unfinished run with another config, which may change what affects only the
            steps to come. `earlier_configs.json` keeps the config before.
        profile: Whether to record ten steps in `profile` in the workdir, for xprof, TensorBoard or Perfetto.
        dataset: The images, such as those of `from_arrays`; the config's `images` is then only their name.
            None loads the images of the config.
        model: A model of your own: an `nnx.Module`, or the result of `own_model`; the config's `model` is
            then only its name. None takes the network of the config.
        command: The command line, word by word, which the report repeats.

    Returns:
        The results of the phases.

    Raises:
        ValueError: If the config is invalid, or is not the one that the workdir was started with, or if the
            weights, their preprocessing or the images are others than at the start. Nothing is written then.
        InUseError: If another process trains in the workdir.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is written; its subclass `Terminated` after
            SIGTERM.
        NonFiniteLossError: If the loss became NaN or infinite.
        FrozenChangedError: If a frozen array changed.
        MissingObjectError: If an optimizer, a learning-rate schedule or a loss is an object of Python, and
            the config has only its description.
    """
    settings = config.config if isinstance(config, ResolvedRun) else config
    if dataset is not None and settings.eval_images is not None:
        raise ValueError(
            f"eval_images={settings.eval_images!r} needs images that the config names; a dataset from Python "
            "has its validation images in `held_out`"
        )
    workdir, progress, goodput = local_path(workdir), progress or Silent(), Goodput()
    resolved = config if isinstance(config, ResolvedRun) else None
    config = config.config if isinstance(config, ResolvedRun) else config
    if model is not None:
        config = with_own_model(config, model)
    pull(workdir, skip=NOT_MIRRORED)
    started = started_config(config, workdir)
    latest, position = read_progress(workdir)
    if started is not None:
        check_changes(started, config, position, workdir, force=force)
    run, notes = None, {}
    finished = position.phase >= len(config.schedule.phases)
    moved = finished and started is not None and bool(differences(started, config))
    if not finished:
        check_objects(config, position.phase)
    if not finished or moved:
        resolved = resolved or resolve(config, workdir=workdir, progress=progress, dataset=dataset)
        run = load_network(resolved, workdir, progress)
        start = check_start(run, position, resumed=finished or latest is not None)
        if moved:
            run = None
        else:
            check_steps(run, latest, position)
            notes = {} if started else resolved.notes
            notes = {**notes, workdir_files.START: json.dumps(start.to_json(), indent=1)}
    processes.wait("checked")  # Until all processes have checked the workdir, none of them changes it.
    if moved:
        _record_places(started or config, config, workdir)
    with contextlib.ExitStack() as stack:
        if run is not None:
            stack.enter_context(workdir_lock(workdir))
            if Checkpoints(workdir / workdir_files.CHECKPOINTS).latest() != latest:
                raise InUseError(f"another training has just changed {workdir}; run the same command again")
        checkpoints = None
        try:
            if run is not None:
                if started is not None and processes.is_first():
                    record_change(started, config, latest, workdir)
                claim(config, workdir, notes)
                checkpoints = SavedCheckpoints(workdir / workdir_files.CHECKPOINTS)
                goodput.seconds = dict(position.seconds)
                goodput.lose(workdir)
                write_environment(workdir, as_tuple(command), images_given=dataset is not None)
                write_plan(run)
                trace = Trace(workdir / workdir_files.PROFILE if profile else None)
                Loop(run, checkpoints, latest, position, progress, goodput, trace).train()
        finally:
            if checkpoints is not None:
                checkpoints.wait()
            if processes.is_first():
                push(workdir, skip=NOT_MIRRORED)
    processes.wait("finished")
    pull(workdir, skip=NOT_MIRRORED)
    phases = tuple(PhaseResult(**result) for result in position.results)
    return Result(workdir=workdir, phases=phases)


def _record_places(started: TrainConfig, given: TrainConfig, workdir: Path) -> None:
    """Writes the places of images and weights, which are compared, into the config of a finished run."""
    with optional(workdir_files.CONFIG, "The run is finished; its images or weights are in another place."):
        places = {name: getattr(given, name) for name in PLACES}
        claim(dataclasses.replace(started, **places), workdir)
