"""All that is drawn of a finished run from the files of its workdir: plots, misclassified images, the report.

The run is complete without them. Each is made inside of `optional`, so that an error is a warning.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from transfer_jax.data import ImageDataset
from transfer_jax.extras import optional, require
from transfer_jax.report.misclassified import has_misclassified, write_misclassified
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.predictions import read_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.remote import display_path


def draw_run(workdir: Path, validation: Callable[[], ImageDataset], *, again: bool = False) -> None:
    """Writes the plots, the executed timeline and the misclassified images of a finished run.

    A failure is a warning that names the command that writes them again.

    Args:
        workdir: The run's folder.
        validation: Returns the validation images. It is called only if images of misclassified examples are
            missing.
        again: Whether an earlier attempt failed, so that the command is not named.
    """
    advice = "" if again else _advice(workdir)
    with optional(f"plots of {workdir.name}", advice):
        require("matplotlib")
        with optional(workdir_files.CURVES, advice):
            from transfer_jax.report.run_figures import draw_curves

            draw_curves(workdir / workdir_files.METRICS, workdir / workdir_files.CURVES)
        with optional(workdir_files.CONFUSION, advice):
            from transfer_jax.report.run_figures import draw_confusion

            draw_confusion(workdir / workdir_files.METRICS, workdir / workdir_files.CONFUSION)
        with optional(workdir_files.TIMELINE_PLOT, advice):
            _draw_timeline(workdir)
    with optional("images of misclassified examples", advice):
        predictions = read_predictions(workdir_files.predictions_file(workdir))
        if not has_misclassified(workdir, predictions) and (dataset := validation()).inputs is None:
            write_misclassified(workdir, predictions, dataset.image)


def drawn_plots(workdir: Path) -> list[Path]:
    """Returns the plots that a workdir has."""
    names = (workdir_files.CURVES, workdir_files.CONFUSION, workdir_files.TIMELINE_PLOT)
    return [workdir / name for name in names if (workdir / name).is_file()]


def write_report(workdir: Path) -> None:
    """Writes `report.html` of a run; a failure is a warning that names the command that writes it again."""
    with optional(workdir_files.REPORT, _advice(workdir)):
        from transfer_jax.report.page.run_page import write_run_report

        write_run_report(workdir)


def _draw_timeline(workdir: Path) -> None:
    """Adds the executed rates to `timeline.json`, and draws them beside the planned ones if it has these."""
    from transfer_jax.report.rate_figures import draw_timelines

    files = RunFiles.from_workdir(workdir)
    planned, executed = files.planned(), files.executed()
    shown = {"executed": executed}
    if planned is not None:
        content = {**files.timeline, "executed": executed.to_json()}
        write_text(workdir / workdir_files.TIMELINE, json.dumps(content))
        shown = {"planned": planned, **shown}
    draw_timelines(shown, workdir / workdir_files.TIMELINE_PLOT)


def _advice(workdir: Path) -> str:
    command = f"transfer-jax report {shlex.quote(str(display_path(workdir)))}"
    return f"The run is finished and its model is saved; `{command}` makes it again."
