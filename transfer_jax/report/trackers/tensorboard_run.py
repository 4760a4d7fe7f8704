"""TensorBoard: event files in `tensorboard` in the workdir, written by tensorboardX."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers.metric_keys import MetricKeys
from transfer_jax.storage import workdir_files

_LONGEST_KEY = 500


class TensorBoard:
    """A run in TensorBoard; a resumed run adds a file.

    Events are on the disk when a method returns. tensorboardX's `SummaryWriter` would write them in a thread,
    which ends at the first error of the disk; then the calls wait for it forever.

    Args:
        folder: The folder of the event files; it is created if needed.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        files = len(list(folder.glob("*")))  # Files of the same second need different names.
        self.id = folder.name
        self._key = MetricKeys(r"[^-/\w.]", _LONGEST_KEY)
        self._writer = EventsWriter(str(folder / "events"), filename_suffix=f".{files}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar

        for name, value in values.items():
            self._write(step, scalar(self._key(name), value))
        self._writer.flush()

    def log_image(self, step: int, path: Path) -> None:
        from matplotlib.image import imread
        from tensorboardX.summary import image

        self._write(step, image(path.stem, imread(path)[..., :3], dataformats="HWC"))
        self._writer.flush()

    def log_text(self, name: str, text: str) -> None:
        """Logs a text."""
        from tensorboardX import summary

        self._write(0, summary.text(name, text))
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        self._writer.close()

    def _write(self, step: int, summary: Any) -> None:
        from tensorboardX.proto import event_pb2

        event = vars(event_pb2)["Event"](wall_time=time.time(), step=step, summary=summary)
        self._writer.write_event(event)


def open_run(workdir: Path, config: Mapping[str, Any], run_id: str | None) -> TensorBoard:
    """Starts the event files of a run, or adds a file to a run with a known id."""
    tracker = TensorBoard(workdir / workdir_files.TENSORBOARD)
    if run_id is None:
        tracker.log_text("config", f"```\n{json.dumps(config, indent=1)}\n```")
    return tracker
