"""TensorBoard: event files in `tensorboard` in the workdir, written by tensorboardX."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tensorboard"
_FLUSH_SECONDS = 1
"""What a kill may lose."""


class TensorBoard:
    """A run at TensorBoard; a run that goes on adds a file.

    Args:
        folder: Where its files are.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self.id = folder.name
        files = len(list(folder.glob("*"))) if folder.is_dir() else 0  # Or else two of one second are one.
        self._writer = SummaryWriter(str(folder), flush_secs=_FLUSH_SECONDS, filename_suffix=f".{files}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_image(self, step: int, path: Path) -> None:
        from matplotlib.image import imread

        self._writer.add_image(path.stem, imread(path)[..., :3], step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Shows a text."""
        self._writer.add_text(name, text)

    def close(self, *, finished: bool) -> None:
        self._writer.close()


def open_run(workdir: Path, config: Mapping[str, Any], known: str | None) -> TensorBoard:
    """Opens the files of a run."""
    tracker = TensorBoard(workdir / FOLDER)
    if known is None:
        tracker.text("config", f"```\n{json.dumps(config, indent=1)}\n```")
    return tracker
