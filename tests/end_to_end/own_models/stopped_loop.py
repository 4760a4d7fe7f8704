"""Runs a loop, and kills this process before a checkpoint.

python stopped_loop.py SCRIPT PHASE COUNT WORKDIR

It is killed before checkpoint number COUNT of a phase in this process, so that steps are lost.
"""

import os
import runpy
import signal
import sys

from transfer_jax.training import LoopCheckpoints


def main(script: str, phase: int, count: int, workdir: str) -> None:
    save, saved = LoopCheckpoints.save, 0

    def stop(checkpoints, state, frozen, now=0, data=None):
        nonlocal saved
        saved += now == phase
        if saved == count:
            os.kill(os.getpid(), signal.SIGKILL)
        save(checkpoints, state, frozen, now, data)

    LoopCheckpoints.save = stop  # type: ignore[method-assign]
    sys.argv = [script, workdir]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
