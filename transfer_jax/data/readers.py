"""The number of threads and processes that read images."""

import os
import pickle
import sys
from typing import Any, NamedTuple

from transfer_jax.distributed import processes

_MOST_THREADS = 6
"""Threads of a process: decoding holds Python's global lock 18 % of the time, so that more do not help."""
_LEAST_CORES = 9
"""Cores from which on processes read as well."""
_MOST_WORKERS = 48
_OTHER_CORES = 4
"""Cores that are left for the step, the network and the operating system."""
_LARGE = 200_000_000
"""Bytes of a dataset from which on it is not copied to each process unless this is asked for."""


class Readers(NamedTuple):
    """The threads and processes that read images.

    Attributes:
        threads: Threads of each process that reads.
        workers: Processes that read; 0 if the run itself does.
    """

    threads: int
    workers: int


def choose_readers(
    threads: int | None = None,
    workers: int | None = None,
    *,
    cores: int | None = None,
    accelerated: bool = True,
    source: Any = None,
) -> Readers:
    """Returns how many threads and processes read images.

    By default a process has as many threads as cores, from two to six. Processes are added with more than
    eight cores and an accelerator, one for each core but four, unless the source cannot be pickled or is in
    memory, or the program is a script, which every process would import: set `read_processes` there, and put
    the calls below `if __name__ == "__main__"`.

    Args:
        threads: Number of threads of each process; None chooses.
        workers: Number of processes; None chooses.
        cores: Number of cores for this process; None takes those that it may use.
        accelerated: True if the steps run on an accelerator; on a CPU they need the cores themselves.
        source: The function that reads, to see whether it can be pickled; None does not look.
    """
    cores = processes.cores() if cores is None else cores
    if workers is None:
        size = pickled_size(source) if accelerated and cores >= _LEAST_CORES else None
        possible = size is not None and size < _LARGE and can_start_processes()
        workers = min(cores - _OTHER_CORES, _MOST_WORKERS) if possible else 0
    if threads is None:
        threads = 1 if workers else min(max(cores, 2), _MOST_THREADS)
    return Readers(threads, workers)


def pickled_size(value: Any) -> int | None:
    """Returns the size in bytes of a value that is sent to another process; None if it cannot be sent."""
    counter = _Counter()
    try:
        pickle.Pickler(counter, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    except Exception:  # Objects of users raise any errors.
        return None
    return counter.size


def can_start_processes() -> bool:
    """Returns True if new processes can import the main module without side effects.

    That is so for the command line. A script may train again when it is imported.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return spec.name.partition(".")[0] == "transfer_jax"
    return os.path.basename(sys.argv[0]).removesuffix(".exe") == "transfer-jax"


class _Counter:
    """A file that counts the bytes that are written."""

    size = 0

    def write(self, data: Any) -> int:
        bytes = memoryview(data).nbytes
        self.size += bytes
        return bytes
