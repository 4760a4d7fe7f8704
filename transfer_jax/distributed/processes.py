"""The processes of one run: their connection, and operations over all of them.

All functions work the same with one process. Decisions of a run are taken from values that are equal in all
processes, and the first process writes the files of the run.
"""

import ctypes
import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
LAUNCHER = "TRANSFER_JAX_LAUNCHER"
HEARTBEAT = "TRANSFER_JAX_HEARTBEAT"
"""The environment variable of the seconds without a heartbeat after which a process counts as dead.

All other processes then end too. The default is 60.
"""
_TASK_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
_PR_SET_PDEATHSIG = 1


def join() -> None:
    """Connects this process to the others of its run, if there are any. Call it before devices are used.

    The processes are configured by `JAX_COORDINATOR_ADDRESS` (`host:port` of the first process),
    `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, which `transfer-jax launch` sets. On TPU VMs, on GKE, under
    SLURM and under Open MPI, JAX finds them.

    Raises:
        ValueError: If only some of the three variables are set.
    """
    end_with_launcher()
    if jax.distributed.is_initialized():
        return
    settings = {name: os.environ.get(name) for name in (COORDINATOR, COUNT, INDEX)}
    if any(settings.values()) and not all(settings.values()):
        missing = ", ".join(name for name, value in settings.items() if not value)
        present = " and ".join(name for name, value in settings.items() if value)
        raise ValueError(f"{missing} must be set too, because {present} is set; set all three or none")
    options: dict[str, Any] = {"heartbeat_timeout_seconds": int(os.environ.get(HEARTBEAT, 60))}
    if all(settings.values()):
        options["num_processes"], options["process_id"] = int(settings[COUNT] or 0), int(settings[INDEX] or 0)
    elif not (_in_cluster() or _on_tpu()):
        return
    # Otherwise JAX handles SIGTERM, and a process ignores it until training starts.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**options)
    except ValueError:
        if all(settings.values()) or _in_cluster():
            raise  # Otherwise it is a TPU without further metadata, such as in a notebook: one process.


def _in_cluster() -> bool:
    """Returns whether a scheduler has started several processes."""
    several = any(int(os.environ.get(name) or 1) > 1 for name in _TASK_COUNTS)
    workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").count(",") > 0
    return several or workers or "MEGASCALE_NUM_SLICES" in os.environ


def _on_tpu() -> bool:
    """Returns whether this machine has a TPU. JAX then looks up the other hosts in its metadata."""
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def end_with_launcher() -> None:
    """Makes the system kill this process when its launcher ends for any reason. Linux only."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # The launcher ended before prctl was called.
        os.kill(os.getpid(), signal.SIGKILL)


def cores() -> int:
    """Returns the number of cores that this process may use, as XLA does: `NPROC`, or its CPU affinity."""
    limit = os.environ.get("NPROC", "")
    if limit.isdigit() and int(limit):
        return int(limit)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count() -> int:
    """Returns the number of processes."""
    return jax.process_count()


def index() -> int:
    """Returns the index of this process, from 0."""
    return jax.process_index()


def is_first() -> bool:
    """Returns whether this process is the first, which writes the files of the run."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until all processes call this function with the same name.

    Args:
        name: The name of the barrier. Different names in different processes are an error.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def to_host(array: jax.Array) -> np.ndarray:
    """Returns a whole array in each process, even if its shards are on devices of several processes."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Returns the sum of an array over all processes."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(0)


def gather_interleaved(rows: np.ndarray, total: int) -> np.ndarray:
    """Gathers rows that are distributed over the processes in turn.

    Args:
        rows: The rows of this process: those at `index()`, `index() + count()` and so on.
        total: The number of rows in all processes.

    Returns:
        All rows, in order, in each process.
    """
    if jax.process_count() == 1:
        return rows
    padded = np.zeros((-(-total // jax.process_count()), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return gathered.swapaxes(0, 1).reshape(-1, *rows.shape[1:])[:total]


def exit_now(code: int) -> None:
    """Ends this process at once after an error that the others do not have. They detect it and end too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
