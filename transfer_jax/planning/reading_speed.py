"""The speed of reading images, from a few that one thread reads."""

import time

import numpy as np

from transfer_jax.data.readers import Readers
from transfer_jax.distributed import processes
from transfer_jax.freezing.phase import Phase
from transfer_jax.training.phase_data import training_fetch
from transfer_jax.training.run import Run

_IMAGES = 64
"""Number of images that are read."""
_THREADS = 5
"""Cores that the threads of one process use: they hold Python's global lock for a fifth of the time."""


def reading_speed(run: Run, phase: Phase) -> float:
    """Returns the images per second that the threads and processes of a run read, an estimate.

    One thread reads some images, and its speed is multiplied by the number of threads that have a core.

    Args:
        run: The run.
        phase: The phase, which decides whether images are augmented.
    """
    fetch = training_fetch(run, phase)
    indices = np.random.default_rng(0).permutation(len(run.train))[:_IMAGES]
    fetch(indices[:1], np.zeros(1, int), np.random.default_rng(0))  # Opens files.
    started = time.perf_counter()
    fetch(indices, np.arange(len(indices)), np.random.default_rng(0))
    one = len(indices) / max(time.perf_counter() - started, 1e-9)
    return one * cores_in_use(run.readers(fetch), processes.cores())


def cores_in_use(readers: Readers, cores: int) -> int:
    """Returns the number of cores that threads and processes read with.

    Args:
        readers: The threads and processes.
        cores: The number of cores of this process.
    """
    return min(min(readers.threads, _THREADS) * max(readers.workers, 1), cores)
