"""The processes of one run: how they find each other, and what they do together.

Everything here works the same with one process. What a run decides from, it decides from values that all
processes share; files that belong to the run are written by the first.
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
"""Seconds after which a process that is not heard of counts as dead; then all others end, too."""
_TASK_COUNTS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
_PR_SET_PDEATHSIG = 1


def join() -> None:
    """Connects this process to the others of its run, if it has any; to be called before devices are used.

    They are told by `JAX_COORDINATOR_ADDRESS` (`host:port` of the first process), `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`, as `transfer-jax launch` does; or found by JAX on TPU VMs, on GKE, under SLURM and under
    Open MPI.

    Raises:
        ValueError: If only some of the three are told.
    """
    end_with_launcher()
    if jax.distributed.is_initialized():
        return
    told = {name: os.environ.get(name) for name in (COORDINATOR, COUNT, INDEX)}
    if any(told.values()) and not all(told.values()):
        missing = ", ".join(name for name, value in told.items() if not value)
        raise ValueError(f"{missing} must be set, too, to connect {' and '.join(n for n in told if told[n])}")
    options: dict[str, Any] = {"heartbeat_timeout_seconds": int(os.environ.get(HEARTBEAT, 60))}
    if all(told.values()):
        options["num_processes"], options["process_id"] = int(told[COUNT] or 0), int(told[INDEX] or 0)
    elif not (_in_cluster() or _on_tpu()):
        return
    # Or else JAX takes SIGTERM for itself, and a process ignores it until it trains.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**options)
    except ValueError:
        if all(told.values()) or _in_cluster():
            raise  # Else it is a TPU that nobody says more of, such as that of a notebook: one process.


def _in_cluster() -> bool:
    """Whether a scheduler has started several processes."""
    several = any(int(os.environ.get(name) or 1) > 1 for name in _TASK_COUNTS)
    workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").count(",") > 0
    return several or workers or "MEGASCALE_NUM_SLICES" in os.environ


def _on_tpu() -> bool:
    """Whether this machine has a TPU; JAX then asks its metadata for other hosts."""
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def end_with_launcher() -> None:
    """Lets the system end this process when the launcher that started it ends, however that may be."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):  # It has ended before it could be noticed.
        os.kill(os.getpid(), signal.SIGKILL)


def cores() -> int:
    """The cores that this process may use, as XLA counts them: `NPROC`, or those it may run on."""
    told = os.environ.get("NPROC", "")
    if told.isdigit() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count() -> int:
    """Number of processes."""
    return jax.process_count()


def index() -> int:
    """The place of this process among them."""
    return jax.process_index()


def is_first() -> bool:
    """Whether this process writes what belongs to the run."""
    return jax.process_index() == 0


def wait(name: str) -> None:
    """Waits until all processes have come here.

    Args:
        name: What they have come to; where they wait at different places, it is an error.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def to_host(array: jax.Array) -> np.ndarray:
    """An array as a whole, in each process, wherever its parts are."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """The sum of an array over all processes."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(0)


def gather_interleaved(rows: np.ndarray, total: int) -> np.ndarray:
    """Rows of which each process has every so-manieth, put in order, in each process.

    Args:
        rows: Those at `index()`, `index() + count()` and so on.
        total: Number of all.
    """
    if jax.process_count() == 1:
        return rows
    padded = np.zeros((-(-total // jax.process_count()), *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return gathered.swapaxes(0, 1).reshape(-1, *rows.shape[1:])[:total]


def exit_now(code: int) -> None:
    """Ends this process at once, for an error that the others do not know of: they notice, and end, too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
