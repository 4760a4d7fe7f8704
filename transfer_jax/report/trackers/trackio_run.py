"""Trackio: a local database, or a Space of Hugging Face; its `TRACKIO_…` variables count."""

import contextlib
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers.tracker import PROJECT


class Trackio:
    """A run at Trackio, which knows it by its name.

    Args:
        run: What `trackio.init` gave.
        name: The run's name.
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
        with contextlib.redirect_stdout(sys.stderr):  # It prints.
            self._run.finish()


def open_run(workdir: Path, config: Mapping[str, Any], known: str | None) -> Trackio:
    """Begins a run, or goes on with the one known."""
    import trackio

    name = known or f"{workdir.resolve().name}-{secrets.token_hex(3)}"
    with contextlib.redirect_stdout(sys.stderr):  # It prints.
        run = trackio.init(project=PROJECT, name=name, config=dict(config), resume="allow")
    return Trackio(run, name)
