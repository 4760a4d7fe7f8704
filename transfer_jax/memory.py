"""The C library's allocator, told to keep what it was given."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def keep_freed_memory() -> bool:
    """Makes glibc reuse freed memory instead of handing it back; returns whether it did.

    XLA on a CPU allocates the buffers of every step anew. By default glibc takes large ones from the system
    and gives them back each time, and the system clears each page again: up to a third of a training step.
    To be called before anything large is allocated; other C libraries are left as they are.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    limit = 2**31 - 1
    return all(
        libc.mallopt(option, value) == 1
        for option, value in ((_M_MMAP_THRESHOLD, limit), (_M_TRIM_THRESHOLD, limit), (_M_ARENA_MAX, 1))
    )
