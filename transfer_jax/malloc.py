"""The C library's allocator, told to keep what it was given."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory instead of handing it back; returns whether it did.

    XLA on a CPU allocates the buffers of every step anew. By default glibc takes large ones from the system
    and gives them back each time, and the system clears each page again: up to a third of a training step.
    To be called before anything large is allocated; other C libraries are left as they are.
    """
    # Without limits: those that glibc takes end at 2 GiB, and a step of a larger network needs more at once.
    return share_freed_memory() and _set(_M_MMAP_MAX, 0) and _set(_M_TRIM_THRESHOLD, -1)


def share_freed_memory() -> bool:
    """Makes threads that glibc has not seen yet allocate where all others do; returns whether it did.

    By default each has an arena of its own, and what it frees is of no use to another: a checkpoint that
    threads of a library unpack then takes nearly twice its size.
    """
    return _set(_M_ARENA_MAX, 1)


def _set(option: int, value: int) -> bool:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return hasattr(libc, "gnu_get_libc_version") and libc.mallopt(option, value) == 1
