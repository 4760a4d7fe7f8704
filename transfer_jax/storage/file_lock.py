"""Locks between processes. The system releases them when their process ends, also if it is killed.

On disks of a network they hold between machines, if the disk supports locks. On a disk without locks, or one
that is read-only, a warning is logged and the work continues without a lock.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_logger = logging.getLogger(__name__)
_held: set[Path] = set()
"""The locks that this process holds."""
_warned: set[Path] = set()
"""The folders whose missing locks were logged."""


class InUseError(ValueError):
    """An error for a folder that another process uses."""


@contextlib.contextmanager
def file_lock(path: Path, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Holds a lock, and waits for it if another process holds it.

    Args:
        path: The file of the lock, which is created if needed and remains.
        waiting: Called before it waits for another process.
    """
    with contextlib.ExitStack() as stack:
        if not _acquire(stack, path, 0):
            if waiting is not None:
                waiting()
            _acquire(stack, path, -1)
        yield


@contextlib.contextmanager
def try_file_lock(path: Path, seconds: float = 0) -> Iterator[bool]:
    """Tries to hold a lock, and yields whether it does.

    Args:
        path: The file of the lock, which is created if needed and remains.
        seconds: The longest time to wait for another process.
    """
    with contextlib.ExitStack() as stack:
        yield _acquire(stack, path, seconds)


def is_locked(path: Path) -> bool:
    """Returns whether another process holds a lock; writes nothing."""
    if path in _held or not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0, fallback_to_soft=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False


def _acquire(stack: contextlib.ExitStack, path: Path, seconds: float) -> bool:
    """Tries to acquire a lock until the stack ends; -1 waits without a limit."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # Created here, it has the permissions of the umask.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = stat.S_IMODE(path.stat().st_mode)
        lock = FileLock(path, timeout=seconds, mode=mode, fallback_to_soft=False)
        lock.acquire()
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        if path.parent not in _warned:
            _warned.add(path.parent)
            _logger.warning("%s is not locked against other processes: %s", path.parent, error)
        return True
    stack.callback(lock.release)
    _held.add(path)
    stack.callback(_held.discard, path)
    return True
