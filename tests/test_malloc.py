import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from transfer_jax.malloc import keep_freed_memory
assert keep_freed_memory() == (sys.argv[1] == "glibc")
bytes(2**25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    b"x" * 2**25
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the C library's name")
def test_memory_that_was_freed_is_not_cleared_again():
    libc = platform.libc_ver()[0]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, libc], capture_output=True, text=True, check=True, timeout=60
    )
    if libc == "glibc":
        assert int(done.stdout) < 2 * 2**25 // 4096  # at most twice the pages of one, not of a hundred
