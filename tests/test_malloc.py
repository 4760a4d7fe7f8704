import ctypes
import platform
import subprocess
import sys

import pytest

from transfer_jax import malloc

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # as in glibc's malloc.h


class Glibc:
    """The part of glibc that sets options of its allocator; it records the calls."""

    gnu_get_libc_version = "2.36"

    def __init__(self, status: int = 1) -> None:
        self.status, self.calls = status, []

    def mallopt(self, option: int, value: int) -> int:
        self.calls.append((option, value))
        return self.status


@pytest.fixture
def use(monkeypatch):
    def use(library, platform: str = "linux") -> None:
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        monkeypatch.setattr("sys.platform", platform)

    return use


def test_freed_memory_is_kept(use):
    library = Glibc()
    use(library)
    assert malloc.keep_freed_memory()
    assert library.calls == [(ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, -1)]


def test_threads_share_freed_memory(use):
    library = Glibc()
    use(library)
    assert malloc.share_freed_memory()
    assert library.calls == [(ARENA_MAX, 1)]


def test_a_refused_option_is_reported(use):
    use(Glibc(status=0))
    assert not malloc.keep_freed_memory()


@pytest.mark.parametrize(("library", "platform"), [(object(), "linux"), (Glibc(), "darwin")])
def test_other_c_libraries_are_not_changed(use, library, platform):
    use(library, platform)
    assert not malloc.keep_freed_memory()
    assert not malloc.share_freed_memory()
    assert getattr(library, "calls", []) == []


PROGRAM = """
import ctypes
from transfer_jax.malloc import keep_freed_memory

class Statistics(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Statistics
assert keep_freed_memory()
mapped = libc.mallinfo2().hblkhd
large = bytes(2**28)
assert libc.mallinfo2().hblkhd == mapped, "a large array has pages of its own, which go back to the system"
del large
assert libc.mallinfo2().fordblks >= 2**28, "freed memory went back to the system"
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None) if sys.platform == "linux" else None, "mallinfo2"),
    reason="only glibc 2.33 and newer tell what they keep",
)
def test_glibc_keeps_what_is_freed():
    assert platform.libc_ver()[0] == "glibc"
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
