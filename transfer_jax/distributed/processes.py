"""The processes of one run: their connection, and operations over all of them.

All functions work the same with one process. Decisions of a run are taken from values that are equal in all
processes, and the first process writes the files of the run.
"""

import contextlib
import ctypes
import importlib.util
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from transfer_jax.distributed.schedulers import Group, number, started_group

COORDINATOR, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
LAUNCHER = "TRANSFER_JAX_LAUNCHER"
HEARTBEAT = "TRANSFER_JAX_HEARTBEAT"
"""The environment variable of the seconds without a heartbeat after which a process counts as dead.

All other processes then end too. The default is 60.
"""
_PATIENCE_OF_FIRST, _PATIENCE = 5.0, 30.0
"""Seconds of waiting after which the first process, and each other one, prints a line."""
_PR_SET_PDEATHSIG = 1
_CGROUPS = Path("/sys/fs/cgroup")


def join(log: Callable[[str], None] = print) -> None:
    """Connects this process to the others of its run, if there are any. Call it before devices are used.

    The processes are configured by `JAX_COORDINATOR_ADDRESS` (`host:port` of the first process),
    `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, which `transfer-jax launch` sets. On TPU VMs, on GKE, under
    SLURM and under Open MPI, JAX finds them. In a shell of an allocation that one process runs, nothing is
    connected.

    Args:
        log: A function that is called with each line to print, such as the processes that this one waits for.

    Raises:
        ValueError: If only some of the three variables are set, or a variable is invalid.
        RuntimeError: If other processes do not connect in time.
    """
    end_with_launcher()
    if jax.distributed.is_initialized():
        return
    settings = {name: os.environ.get(name) for name in (COORDINATOR, COUNT, INDEX)}
    if any(settings.values()) and not all(settings.values()):
        missing = ", ".join(name for name, value in settings.items() if not value)
        present = " and ".join(name for name, value in settings.items() if value)
        raise ValueError(f"{missing} must be set too, because {present} is set; set all three or none")
    options: dict[str, Any] = {"heartbeat_timeout_seconds": number(HEARTBEAT, 60)}
    if all(settings.values()):
        group = Group(
            "JAX_COORDINATOR_ADDRESS",
            number(COUNT),
            number(INDEX),
            place=settings[COORDINATOR] or "",
            unset=COUNT,
        )
        options |= {"num_processes": group.count, "process_id": group.index}
        if LAUNCHER in os.environ:  # Otherwise JAX asks a scheduler for the devices of this process.
            options["cluster_detection_method"] = "deactivate"
    else:
        group = started_group()
    if group is None and not _on_tpu():
        return
    if group is not None and group.alone:
        log(
            f"{group.scheduler} names {group.count} processes ({group.unset}), but {group.alone}: "
            f"this process trains alone. Start all of them with: {group.start}"
        )
        return
    # Otherwise JAX handles SIGTERM, and a process ignores it until training starts.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _waiting(group, log):
            jax.distributed.initialize(**options)
    except ValueError as error:
        if group is None:
            return  # A TPU without further metadata, such as in a notebook: one process.
        if "coordinator_address" not in str(error):
            raise
        raise ValueError(
            f"{group.unset} names several processes, but JAX finds no {group.scheduler} on this machine; "
            f"install 'transfer_jax[pods]' on a TPU, or unset {group.unset} to train alone"
        ) from error
    except RuntimeError as error:
        if group is None:
            raise
        raise RuntimeError(
            f"not all processes of {_described(group)} connected ({error}); check that all of them started, "
            f"or unset {group.unset} to train alone"
        ) from error


@contextlib.contextmanager
def _waiting(group: Group | None, log: Callable[[str], None]) -> Iterator[None]:
    """Prints a line about the other processes if they do not connect within some seconds."""
    if group is None or LAUNCHER in os.environ:
        yield
        return
    others = f"{group.count - 1} other process{'' if group.count == 2 else 'es'}" if group.count else "others"
    line = (
        f"Process {group.index} waits for {others} of {_described(group)}, up to 5 minutes. "
        f"To train alone, unset {group.unset}."
    )
    timer = threading.Timer(_PATIENCE_OF_FIRST if group.index == 0 else _PATIENCE, log, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _described(group: Group) -> str:
    return f"{group.scheduler} ({group.place})" if group.place else group.scheduler


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
    """Returns the number of cores that this process may use.

    It is `NPROC` if that is set, as for XLA; otherwise its CPU affinity, or a lower limit of its container.
    """
    limit = os.environ.get("NPROC", "")
    if limit.isdecimal() and int(limit):
        return int(limit)
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([affinity, *_cgroup_limits()])


def _cgroup_limits() -> list[int]:
    """Returns the numbers of cores that the control groups of this process allow, rounded up."""
    own = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    limits = []
    folder = _CGROUPS / own
    for each in (folder, *folder.parents[: len(Path(own).parts)], _CGROUPS / "cpu"):
        with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
            if each.name == "cpu":
                text = [
                    (each / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
                ]
            else:
                text = (each / "cpu.max").read_text(encoding="utf-8").split()
            quota, period = map(int, text)  # `max` or -1 is no limit.
            if quota > 0:
                limits.append(-(-quota // period))
    return limits


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


def to_host(array: jax.Array | np.ndarray) -> np.ndarray:
    """Returns a whole array in each process, even if its shards are on devices of several processes."""
    if isinstance(array, jax.Array) and not (array.is_fully_addressable or array.is_fully_replicated):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def sum_over_processes(values: np.ndarray) -> np.ndarray:
    """Returns the sum of an array over all processes."""
    if jax.process_count() == 1:
        return values
    return np.asarray(multihost_utils.process_allgather(values)).sum(0)


def gather_texts(text: str) -> list[str]:
    """Returns the texts of all processes, in the order of the processes, in each process."""
    if jax.process_count() == 1:
        return [text]
    content = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.array([len(content)]))).ravel()
    padded = np.zeros(max(1, int(sizes.max())), np.uint8)
    padded[: len(content)] = content
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return [bytes(row[:size]).decode() for row, size in zip(gathered, sizes, strict=True)]


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
