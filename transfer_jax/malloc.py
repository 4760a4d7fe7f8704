"""Settings of the C library's memory allocator."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory instead of returning it to the system.

    XLA on a CPU allocates the buffers of every step again. By default glibc returns large ones to the system,
    and the system clears each page when it is allocated again: up to a third of a training step. Call this
    before anything large is allocated.

    Returns:
        True if the setting was changed; False with other C libraries than glibc.
    """
    # Without limits: those of glibc end at 2 GiB, and a step of a larger network needs more at once.
    return share_freed_memory() and _set(_M_MMAP_MAX, 0) and _set(_M_TRIM_THRESHOLD, -1)


def share_freed_memory() -> bool:
    """Makes threads that start after this call allocate from one shared arena of glibc.

    By default each thread has its own arena, whose freed memory other threads cannot use. A checkpoint that
    threads of a library decompress then takes nearly twice its size.

    Returns:
        True if the setting was changed; False with other C libraries than glibc.
    """
    return _set(_M_ARENA_MAX, 1)


def _set(option: int, value: int) -> bool:
    """Sets an option of glibc's `mallopt` and returns whether it succeeded."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return hasattr(libc, "gnu_get_libc_version") and libc.mallopt(option, value) == 1
