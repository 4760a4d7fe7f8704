"""The command `transfer-jax report`, which writes reports."""

from pathlib import Path
from typing import Annotated

import tyro

from transfer_jax.report.console import BARS, OUT, print_line

_UNREAD = ("features", "checkpoints", "model")
"""Folders of a workdir that a report does not read."""


def report(folders: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path | None = None) -> None:
    """Writes an HTML report of a run, of a study or a search, or of several runs side by side.

    The report is one file that opens from disk. `transfer-jax report RUN` writes `RUN/report.html`, whether
    the run is finished or not; `transfer-jax report STUDY` writes that of a study; `transfer-jax report RUN
    RUN ...` compares runs. For a finished run, it also draws the plots again, and the images of misclassified
    examples that are missing.

    Args:
        folders: Folders of runs or studies; among several, a study stands for all its runs.
        out: The file; by default `report.html` in the folder, or in the current folder for a comparison.
    """
    from transfer_jax.diagnostics import redraw
    from transfer_jax.report.page import (
        is_search,
        is_study,
        write_comparison,
        write_run_report,
        write_search_report,
        write_study_report,
    )
    from transfer_jax.report.page.run_files import RunFiles
    from transfer_jax.storage import workdir_files
    from transfer_jax.storage.remote import display_path, local_path, pull, push

    if not folders:
        raise ValueError("no folder given; name the folder of a run or of a study")
    if out is not None and out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out must end in .html, got {out}")
    places = [local_path(folder) for folder in folders]
    for place in places:
        pull(place, skip=_UNREAD)
    if len(places) == 1:
        folder = places[0]
        if is_study(folder):
            written = write_study_report(folder, out)
        elif is_search(folder):
            written = write_search_report(folder, out)
        elif RunFiles.from_workdir(folder).finished:
            written = redraw(folder, out=out, progress=BARS)
        else:
            written = write_run_report(folder, out)
        push(written)
    else:
        runs = [run for place in places for run in _runs(place)]
        written = write_comparison(runs, out or Path(workdir_files.REPORT))
    print_line(OUT, f"Report: {display_path(written)}")


def _runs(folder: Path) -> list[Path]:
    """Returns the folders of the runs of a study, or the folder itself."""
    from transfer_jax.report.page import is_study
    from transfer_jax.storage import workdir_files
    from transfer_jax.studies.study import read_study

    if not is_study(folder):
        return [folder]
    workdirs = [trial.workdir(folder) for trial in read_study(folder).trials]
    return sorted(workdir for workdir in workdirs if (workdir / workdir_files.CONFIG).is_file())
