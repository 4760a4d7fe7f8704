"""Metrics as JSON lines."""

import json
from pathlib import Path
from typing import Any

from transfer_jax.distributed import processes
from transfer_jax.report.trackers import Trackers
from transfer_jax.storage.atomic_write import write_text


class MetricsLog:
    """Appends a JSON object a line, each with the `step` of the run that it belongs to; in the first process.

    Args:
        path: The file.
        resume_step: Lines after this step are dropped: the run is about to write them again.
        trackers: Who else is told.
    """

    def __init__(self, path: Path, *, resume_step: int = 0, trackers: Trackers | None = None) -> None:
        self._path = path
        self._trackers = trackers
        if processes.is_first():
            lines = read_metrics(path) if path.exists() else []
            if trackers is not None:
                trackers.catch_up(lines)
            kept = [line for line in lines if line["step"] <= resume_step]
            write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, step: int, kind: str, **values: Any) -> None:
        """Adds a line and flushes it."""
        if processes.is_first():
            line = {"step": step, "kind": kind, **values}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if self._trackers is not None:
                self._trackers.line(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a kill cut off is left out."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
