"""`fit`: a whole schedule, which goes on by itself where it was stopped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.storage import workdir_files
from transfer_jax.distributed import processes
from transfer_jax.storage.checkpoints import Checkpoints
from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset
from transfer_jax.storage.remote import local_of, pull, push
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.environment import write_environment
from transfer_jax.runs.goodput import Goodput, Trace
from transfer_jax.runs.loop import Loop
from transfer_jax.runs.artifacts import report, write_plan
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.result import PhaseResult, Result
from transfer_jax.training.run import prepare
from transfer_jax.runs.workdir import LAZY, check_workdir, claim


def fit(
    config: TrainConfig,
    workdir: str | Path,
    *,
    progress: Progress | None = None,
    force: bool = False,
    profile: bool = False,
    dataset: ImageDataset | None = None,
    command: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> Result:
    """Trains a schedule, or goes on with it where an earlier call was stopped or killed.

    Ctrl-C or SIGTERM during training writes a checkpoint first. A run that is finished is only read.

    Args:
        config: What to train.
        workdir: The run's folder, which may be in object storage (`gs://…`, `s3://…`); made if it is not
            there.
        progress: Where to report to.
        force: Goes on although the config is not the one that the workdir was begun with.
        profile: Records ten steps in `profile` in the workdir, for xprof, TensorBoard or Perfetto.
        dataset: The images, such as those of `from_arrays`; the config's `images` only names them then.
        command: What was typed, word by word, for the report to repeat.
        notes: Texts to put into the workdir by file name, once it is the run's, such as what was chosen.

    Raises:
        ValueError: If the config cannot be, or is not the one that the workdir was begun with. Nothing was
            written then.
        KeyboardInterrupt: After Ctrl-C, once a checkpoint was written; `Terminated`, which is one, after
            SIGTERM.
        NonFiniteLossError: If the loss became NaN or infinite.
        FrozenChangedError: If anything changed that was to stay frozen.
    """
    workdir, progress, goodput = local_of(workdir), progress or Silent(), Goodput()
    pull(workdir, skip=LAZY)
    begun = check_workdir(config, workdir, force=force)
    run = None if begun else prepare(config, workdir, progress, dataset)
    processes.wait("checked")  # Before any of them changes what others check.
    claim(config, workdir, notes or {})
    checkpoints = Checkpoints(workdir / workdir_files.CHECKPOINTS)
    try:
        latest = checkpoints.latest()
        position = RunProgress() if latest is None else RunProgress(**checkpoints.progress(latest))
        left = position.phase < len(config.schedule.phases)
        if left:
            run = run or prepare(config, workdir, progress, dataset)
            goodput.seconds, goodput.saved = dict(position.seconds), position.saved
            goodput.lose(workdir)
            write_environment(workdir, command, images_given=dataset is not None)
            write_plan(run)
            trace = Trace(workdir / workdir_files.PROFILE if profile else None)
            Loop(run, checkpoints, latest, position, progress, goodput, trace).train()
        report(workdir, anew=left)
    finally:
        if processes.is_first():
            push(workdir, skip=LAZY)
    processes.wait("finished")
    pull(workdir, skip=LAZY)
    phases = tuple(PhaseResult(**result) for result in position.results)
    return Result(workdir=workdir, phases=phases)


def fine_tune(
    model: str, images: str | Path, *, workdir: str | Path, progress: Progress | None = None, **settings: Any
) -> Result:
    """Adapts a pretrained network to a set of images, by default in the five steps of fine-tuning.

    Args:
        model: Name of the network (see `model_names`).
        images: A folder with a subfolder of images a class, or another source that `TrainConfig` knows.
        workdir: Folder for checkpoints, metrics, pictures and the trained model. The same call goes on where
            an earlier one was stopped.
        progress: Where to report to.
        **settings: Any other field of `TrainConfig`.

    Returns:
        What was done, with the scores on the images held out.
    """
    return fit(TrainConfig(model=model, images=str(images), **settings), workdir, progress=progress)
