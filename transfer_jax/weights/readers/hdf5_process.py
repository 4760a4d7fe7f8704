"""A process that reads the structure of HDF5 files, with a time limit.

The HDF5 library reads some damaged files over and over, and crashes on others. In a process of its own, both
are an error of the file. The process is started for the first file, takes about as long as the import of
h5py, and ends by itself if no further file comes.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from transfer_jax.weights.readers.errors import CheckpointError

SECONDS = 30
"""The time limit for the structure of a file, in seconds. Values of arrays are read outside of it."""


class _Process:
    """A running process.

    Attributes:
        owner: The id of the process that started it.
    """

    def __init__(self) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("hdf5_walk.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths, "HDF5_USE_FILE_LOCKING": "FALSE"},
            start_new_session=True,
        )

    def ask(self, request: dict[str, Any], seconds: float) -> tuple[bytes, bool]:
        """Returns the answer, empty if the process ended, and whether the time limit was reached."""
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.append(self._exchange(request)), daemon=True)
        thread.start()
        thread.join(seconds)
        late = thread.is_alive()
        if late or not received or not received[0]:
            self.end()
        return (b"", late) if late else (received[0] if received else b"", False)

    def _exchange(self, request: dict[str, Any]) -> bytes:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
            size = int.from_bytes(stdout.read(8), "little")
            answer = stdout.read(size)
        except (OSError, ValueError):
            return b""
        return answer if len(answer) == size else b""

    @property
    def ended_by_itself(self) -> bool:
        """True if the process ended without an error, because no request came."""
        return self._process.poll() == 0

    def end(self) -> None:
        """Ends the process."""
        if self.owner != os.getpid():
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.wait(0.2 if self._process.poll() is None else 0)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


_running: list[_Process] = []
_starting: list[bool] = []
_lock = threading.Lock()


@atexit.register
def _end_all() -> None:
    for process in _running:
        process.end()
    _running.clear()


def _current() -> _Process:
    """Returns a process of this process; one that a parent of this process started is left alone."""
    if _running and (_running[0].owner != os.getpid() or _running[0].ended_by_itself):
        _running.pop().end()
    if not _running:
        _starting.append(True)
        try:
            _running.append(_Process())
        finally:
            _starting.clear()
    return _running[0]


def is_starting() -> bool:
    """Returns whether the process is being started, for audit hooks that allow no other one."""
    return bool(_starting)


def structure(path: Path, start: int, stop: int) -> list[dict[str, Any]]:
    """Returns the objects of the HDF5 file in a range of bytes of a file; see `hdf5_walk.Walk.nodes`.

    Raises:
        CheckpointError: If the file is damaged: it is not HDF5, or reading it crashes or takes too long.
    """
    request = {"path": str(path.absolute()), "start": start, "stop": stop, "seconds": 2 * SECONDS}
    with _lock:
        process = _current()
        answer, late = process.ask(request, SECONDS)
        if not answer and not late and process.ended_by_itself:  # it ended just before the request
            _running.clear()
            answer, late = _current().ask(request, SECONDS)
        if not answer:
            _running.clear()
    if late:
        raise CheckpointError(
            f"damaged or malicious HDF5 file: its structure was not read in {SECONDS:g} seconds; download or "
            "save it again"
        )
    if not answer:
        raise CheckpointError("damaged or malicious HDF5 file: the HDF5 library crashes on it")
    found = json.loads(answer)
    if "nodes" not in found:
        raise CheckpointError(f"damaged or truncated HDF5 file: {found['text']}")
    return found["nodes"]
