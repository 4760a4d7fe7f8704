"""The trackers of a run, whose errors do not stop it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.extras import optional, require
from transfer_jax.report.trackers import mlflow_run, tensorboard_run, trackio_run, wandb_run
from transfer_jax.report.trackers.tracker import Tracker, scalars
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text

_ADVICE = "The run continues without it; its metrics are in metrics.jsonl."

Opener = Callable[[Path, Mapping[str, Any], str | None], Tracker]
"""A function that opens a run, given the workdir, the config, and the id of the run (None for a new run)."""

TRACKERS: dict[str, tuple[str, Opener]] = {
    "tensorboard": ("tensorboardX", tensorboard_run.open_run),
    "wandb": ("wandb", wandb_run.open_run),
    "mlflow": ("mlflow", mlflow_run.open_run),
    "trackio": ("trackio", trackio_run.open_run),
}
"""For each tracker its package, and the function that opens a run."""


def check_installed(names: Sequence[str]) -> None:
    """Checks that the packages of trackers are installed, without importing them.

    Raises:
        MissingExtraError: If a package is missing.
    """
    for name in names:
        require(TRACKERS[name][0])


class Trackers:
    """The trackers of a run.

    A tracker that fails, when it is opened or later, is disabled with one warning. Lines that a resumed run
    writes again are not logged twice.

    Args:
        names: The names of the trackers, keys of `TRACKERS`.
        workdir: The workdir of the run.
        config: The config of the run, as JSON values.
    """

    def __init__(self, names: Sequence[str], workdir: Path, config: Mapping[str, Any]) -> None:
        self._open: dict[str, Tracker] = {}
        self._new: list[str] = []
        self._logged: set[tuple[Any, ...]] = set()
        known = _read_ids(workdir)
        for name in names:
            with optional(f"tracker {name}", _ADVICE):
                self._open[name] = TRACKERS[name][1](workdir, config, known.get(name))
        self._new = [name for name in self._open if name not in known]
        if self._new:
            with optional(workdir_files.TRACKERS, "A resumed run starts new runs in its trackers."):
                ids = {name: tracker.id for name, tracker in self._open.items()}
                write_text(workdir / workdir_files.TRACKERS, json.dumps({**known, **ids}, indent=1))

    def catch_up(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Registers the existing metrics lines of a resumed run, and logs them to its new trackers."""
        for line in lines:
            self._logged.add(_key(line))
            self._log(self._new, line)
        self._new = []

    def log_line(self, line: Mapping[str, Any]) -> None:
        """Logs a metrics line, unless it was logged before."""
        if _key(line) not in self._logged:
            self._log([*self._open], line)

    def finish(self, step: int, scores: Mapping[str, Any], images: Sequence[Path]) -> None:
        """Logs the final scores, as `final/…`, and the images."""
        values = scalars(scores, "final")
        for name in [*self._open]:
            self._try(name, lambda tracker: tracker.log(step, values))
            for path in images:
                self._try(name, lambda tracker, path=path: tracker.log_image(step, path))

    def close(self, *, finished: bool) -> None:
        """Closes all trackers, which send their remaining data."""
        for name in [*self._open]:
            self._try(name, lambda tracker: tracker.close(finished=finished))
        self._open = {}

    def _log(self, names: Sequence[str], line: Mapping[str, Any]) -> None:
        rest = {name: value for name, value in line.items() if name not in ("step", "kind")}
        values = scalars(rest, line["kind"])
        if values:
            for name in names:
                self._try(name, lambda tracker: tracker.log(line["step"], values))

    def _try(self, name: str, action: Callable[[Tracker], None]) -> None:
        tracker = self._open.get(name)
        if tracker is None:
            return
        with optional(f"tracker {name}", _ADVICE) as attempt:
            action(tracker)
        if attempt.error is not None:
            del self._open[name]


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["step"], line["kind"], line.get("phase")


def _read_ids(workdir: Path) -> dict[str, str]:
    """Returns the ids of the run in its trackers; empty if the file is missing or damaged."""
    try:
        ids = json.loads((workdir / workdir_files.TRACKERS).read_bytes())
    except (OSError, ValueError):
        return {}
    known = ids.items() if isinstance(ids, dict) else ()
    return {name: each for name, each in known if isinstance(each, str)}
