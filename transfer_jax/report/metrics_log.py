"""The metrics log of a run: a file of JSON lines."""

import json
from pathlib import Path
from typing import Any

from transfer_jax.distributed import processes
from transfer_jax.report.trackers import Trackers
from transfer_jax.storage.atomic_write import write_text


class MetricsLog:
    """A log that appends one JSON object per line, each with the `step` of the run.

    Only the first process writes.

    Args:
        path: The file.
        resume_step: The step that the run resumes from. Later lines are dropped, because the run writes them
            again.
        trackers: The trackers that the lines are also sent to; none by default.
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
        """Appends a line to the file, and sends it to the trackers."""
        if processes.is_first():
            line = {"step": step, "kind": kind, **values}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            if self._trackers is not None:
                self._trackers.log_line(line)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a log; an incomplete last line, left by a killed process, is skipped."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
