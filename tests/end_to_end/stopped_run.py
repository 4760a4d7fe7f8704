"""Runs a command, and sends this process a signal in the middle of it.

python stopped_run.py TASK COUNT SIGNAL COMMAND …

The signal comes when the task has advanced COUNT times. Shards of features are as small as can be, so that an
extraction has several.
"""

import os
import sys

from transfer_jax import cli
from transfer_jax.features import shard_writer
from transfer_jax.report.console import Bars


def main(task: str, count: int, number: int, command: list[str]) -> int:
    shard_writer._SHARD_BYTES = 1
    begin, go_on = Bars.start, Bars.advance
    task_now, advanced = "", 0

    def start(bars: Bars, name: str, total: int, *, done: int = 0) -> None:
        nonlocal task_now, advanced
        task_now, advanced = name, 0
        begin(bars, name, total, done=done)

    def advance(bars: Bars, images: int, **values: float) -> None:
        nonlocal advanced
        advanced += 1
        if (task_now, advanced) == (task, count):
            os.kill(os.getpid(), number)
        go_on(bars, images, **values)

    setattr(Bars, "start", start)  # noqa: B010
    setattr(Bars, "advance", advance)  # noqa: B010
    return cli.main(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
