"""TensorBoard: event files in `tensorboard` in the workdir, written by tensorboardX."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers.metric_keys import MetricKeys
from transfer_jax.storage import workdir_files

_LONGEST_KEY = 500
_FLUSH_SECONDS = 1
"""The interval between flushes; a killed process loses at most this much."""


class TensorBoard:
    """A run in TensorBoard; a resumed run adds a file.

    Args:
        folder: The folder of the event files.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self.id = folder.name
        self._key = MetricKeys(r"[^-/\w.]", _LONGEST_KEY)
        files = (
            len(list(folder.glob("*"))) if folder.is_dir() else 0
        )  # Files of the same second need different names.
        self._writer = SummaryWriter(str(folder), flush_secs=_FLUSH_SECONDS, filename_suffix=f".{files}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(self._key(name), value, step)

    def log_image(self, step: int, path: Path) -> None:
        from matplotlib.image import imread

        self._writer.add_image(path.stem, imread(path)[..., :3], step, dataformats="HWC")

    def log_text(self, name: str, text: str) -> None:
        """Logs a text."""
        self._writer.add_text(name, text)

    def close(self, *, finished: bool) -> None:
        self._writer.close()


def open_run(workdir: Path, config: Mapping[str, Any], run_id: str | None) -> TensorBoard:
    """Starts the event files of a run, or adds a file to a run with a known id."""
    tracker = TensorBoard(workdir / workdir_files.TENSORBOARD)
    if run_id is None:
        tracker.log_text("config", f"```\n{json.dumps(config, indent=1)}\n```")
    return tracker
