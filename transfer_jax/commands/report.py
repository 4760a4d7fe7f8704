"""The command about reports: `transfer-jax report`."""

from pathlib import Path
from typing import Annotated

import tyro

from transfer_jax.report.console import OUT
from transfer_jax.report.page import is_study, write_comparison, write_run_report, write_study_report
from transfer_jax.storage import workdir_files
from transfer_jax.storage.remote import display_path, local_of, pull, push

_UNREAD = ("features", "checkpoints", "model")
"""Folders of a workdir that a report says nothing of."""


def report(folders: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path | None = None) -> None:
    """Write a run, a study, or runs side by side as one HTML file that opens from disk.

    `transfer-jax report RUN` writes `RUN/report.html`, finished or not; `transfer-jax report STUDY` that of
    a study, `transfer-jax report RUN RUN …` a comparison.

    Args:
        folders: Runs; or a study, which stands for its runs among others.
        out: The file; `report.html` in the folder, or here for a comparison.
    """
    if not folders:
        raise ValueError("name the folder of a run or of a study")
    if out is not None and out.suffix not in (".html", ".htm"):
        raise ValueError(f"--out must end in .html, got {out}")
    places = [local_of(folder) for folder in folders]
    for place in places:
        pull(place, skip=_UNREAD)
    if len(places) == 1:
        write = write_study_report if is_study(places[0]) else write_run_report
        written = write(places[0], out)
        if out is None:
            push(written)
    else:
        written = write_comparison(
            [run for place in places for run in _runs(place)], out or Path(workdir_files.REPORT)
        )
    OUT.print(f"The report: {display_path(written)}", highlight=False, markup=False, soft_wrap=True)


def _runs(place: Path) -> list[Path]:
    """The runs that a folder stands for: itself, or those of a study."""
    if not is_study(place):
        return [place]
    return sorted(path.parent for path in place.glob("trials/*/config.json"))
