"""The function `fit`, which trains a schedule and resumes it, and its shortcut `fine_tune`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset
from transfer_jax.distributed import processes
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.artifacts import report, write_plan
from transfer_jax.runs.checkpointing import latest_progress
from transfer_jax.runs.environment import write_environment
from transfer_jax.runs.goodput import Goodput, Trace
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.loop import Loop
from transfer_jax.runs.resolve import resolve
from transfer_jax.runs.result import PhaseResult, Result
from transfer_jax.runs.workdir import NOT_MIRRORED, check_workdir, claim
from transfer_jax.storage import workdir_files
from transfer_jax.storage.checkpoints import Checkpoints
from transfer_jax.storage.remote import local_path, pull, push


def fit(
    config: TrainConfig | ResolvedRun,
    workdir: str | Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    profile: bool = False,
    dataset: ImageDataset | None = None,
    command: Sequence[str] = (),
) -> Result:
    """Trains a schedule, or resumes it if an earlier call was stopped or killed.

    Ctrl-C or SIGTERM during training writes a checkpoint first. A finished run is only read.

    Args:
        config: The config, or the result of `resolve`.
        workdir: The run's folder, which may be in object storage (`gs://…`, `s3://…`). It is created if it
            does not exist.
        progress: Receives the progress of the run; None shows none.
        force: Whether to resume a run that was started with another config.
        profile: Whether to record ten steps in `profile` in the workdir, for xprof, TensorBoard or Perfetto.
        dataset: The images, such as those of `from_arrays`; the config's `images` is then only their name.
            None loads the images of the config.
        command: The command line, word by word, which the report repeats.

    Returns:
        The results of the phases.

    Raises:
        ValueError: If the config is invalid, or is not the one that the workdir was started with. Nothing is
            written then.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint is written; its subclass `Terminated` after
            SIGTERM.
        NonFiniteLossError: If the loss became NaN or infinite.
        FrozenChangedError: If a frozen array changed.
    """
    workdir, progress, goodput = local_path(workdir), progress or Silent(), Goodput()
    resolved = config if isinstance(config, ResolvedRun) else None
    config = config.config if isinstance(config, ResolvedRun) else config
    pull(workdir, skip=NOT_MIRRORED)
    resumed = check_workdir(config, workdir, force=force)
    run, notes = None, {}
    if not resumed:
        resolved = resolved or resolve(config, progress=progress, dataset=dataset)
        run, notes = load_network(resolved, workdir), resolved.notes
    processes.wait("checked")  # Until all processes have checked the workdir, none of them changes it.
    claim(config, workdir, notes)
    checkpoints = Checkpoints(workdir / workdir_files.CHECKPOINTS)
    try:
        latest, position = latest_progress(checkpoints)
        unfinished = position.phase < len(config.schedule.phases)
        if unfinished:
            if run is None:
                resolved = resolved or resolve(config, progress=progress, dataset=dataset)
                run = load_network(resolved, workdir)
            goodput.seconds, goodput.saved = dict(position.seconds), position.saved
            goodput.lose(workdir)
            write_environment(workdir, command, images_given=dataset is not None)
            write_plan(run)
            trace = Trace(workdir / workdir_files.PROFILE if profile else None)
            Loop(run, checkpoints, latest, position, progress, goodput, trace).train()
        report(workdir, overwrite=unfinished)
    finally:
        if processes.is_first():
            push(workdir, skip=NOT_MIRRORED)
    processes.wait("finished")
    pull(workdir, skip=NOT_MIRRORED)
    phases = tuple(PhaseResult(**result) for result in position.results)
    return Result(workdir=workdir, phases=phases)


def fine_tune(
    model: str, images: str | Path, *, workdir: str | Path, progress: Progress | None = None, **settings: Any
) -> Result:
    """Fine-tunes a pretrained network on a set of images, by default in the five steps of fine-tuning.

    Args:
        model: Name of the network (see `model_names`).
        images: A folder with one subfolder of images for each class, or another source that `TrainConfig`
            knows.
        workdir: Folder of checkpoints, metrics, plots and the trained model. The same call resumes a run
            that was stopped.
        progress: Receives the progress of the run; None shows none.
        **settings: Any other fields of `TrainConfig`.

    Returns:
        The results of the phases, with the scores on the validation images.
    """
    return fit(TrainConfig(model=model, images=str(images), **settings), workdir, progress=progress)
