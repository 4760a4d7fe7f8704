"""The function `redraw`, which draws a finished run again."""

from pathlib import Path

from transfer_jax.data import ImageDataset
from transfer_jax.diagnostics.finished_run import FinishedRun
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.decorations import draw_run
from transfer_jax.runs.environment import images_given
from transfer_jax.storage import workdir_files
from transfer_jax.storage.remote import local_path, pull, push

_UNUSED = (workdir_files.FEATURES, workdir_files.CHECKPOINTS, workdir_files.MODEL)
"""Folders of a workdir that are not read."""


def redraw(
    workdir: str | Path,
    *,
    dataset: ImageDataset | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Draws a finished run again: its plots, the images of misclassified examples, and its report.

    Those images are drawn only if some are missing. An error in the plots or the images is logged, and all
    else is written. `transfer-jax report` calls this function.

    Args:
        workdir: Folder of a finished run, local or in object storage.
        dataset: Images of the run, if it was trained on a dataset object; None reads those of its config.
        out: The HTML file of the report; `report.html` in the workdir by default.
        progress: Reporter of progress; None reports nothing.

    Returns:
        The path of the report.

    Raises:
        FileNotFoundError: If the folder is not a workdir.
        ValueError: If the run is not finished.
        ModuleNotFoundError: If a package that reports need is not installed.
    """
    from transfer_jax.report.page.run_page import write_run_report

    workdir = local_path(workdir)
    pull(workdir, skip=_UNUSED)
    if not RunFiles.from_workdir(workdir).finished:
        raise ValueError(f"the run in {workdir} is not finished; train it to its end first")

    def validation() -> ImageDataset:
        if dataset is None and images_given(workdir):
            raise ValueError(
                "the images were passed from Python; pass them again: "
                f"transfer_jax.diagnostics.redraw({str(workdir)!r}, dataset=images)"
            )
        return FinishedRun(workdir, progress or Silent(), dataset).images[1]

    draw_run(workdir, validation, again=True)
    written = write_run_report(workdir, out)
    push(workdir, skip=_UNUSED)
    return written
