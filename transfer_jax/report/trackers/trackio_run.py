"""Trackio, with a local database or a Hugging Face Space; it reads its `TRACKIO_…` environment variables."""

import contextlib
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers.tracker import PROJECT


class Trackio:
    """A run in Trackio. The id of a run is its name.

    Args:
        run: The run that `trackio.init` returned.
        name: The name of the run.
    """

    def __init__(self, run: Any, name: str) -> None:
        self.id = name
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def log_image(self, step: int, path: Path) -> None:
        import trackio

        self._run.log({path.stem: trackio.Image(str(path))}, step=step)

    def close(self, *, finished: bool) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # Trackio prints.
            self._run.finish()


def open_run(workdir: Path, config: Mapping[str, Any], run_id: str | None) -> Trackio:
    """Starts a run, or continues the run with a known id."""
    import trackio

    name = run_id or f"{workdir.resolve().name}-{secrets.token_hex(3)}"
    with contextlib.redirect_stdout(sys.stderr):  # Trackio prints.
        run = trackio.init(project=PROJECT, name=name, config=dict(config), resume="allow")
    return Trackio(run, name)
