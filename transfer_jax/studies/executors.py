"""The executors of workers: local processes, SLURM jobs, or Ray tasks."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from transfer_jax.distributed import processes
from transfer_jax.extras import require

Place = Literal["local", "slurm", "ray"]
_THREAD_VARIABLES = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""The environment variables that set the number of threads of XLA, OpenMP and the libraries of NumPy."""


class Worker(Protocol):
    """A started worker."""

    def poll(self) -> int | None:
        """Returns the exit code, or None while it runs. 75 and 130 mean that it was stopped and has saved."""
        ...

    def stop(self) -> None:
        """Asks the worker to save and exit."""
        ...

    def kill(self) -> None:
        """Kills the worker at once."""
        ...


Start = Callable[[Sequence[str], Path], Worker]
"""A function that starts a worker, given the arguments of `transfer-jax` and the path of its log file."""


def starter(place: Place, workers: int, folder: Path, options: Mapping[str, Any]) -> Start:
    """Returns the function that starts a worker at a place.

    Args:
        place: `local`, `slurm` or `ray`.
        workers: The number of workers. Local workers divide the cores of the machine among them.
        folder: The folder of the study.
        options: The parameters of submitit's `AutoExecutor` for SLURM, or of `ray.remote` for Ray.

    Raises:
        ModuleNotFoundError: If the package `submitit` or `ray` is not installed.
        ValueError: If the place is unknown.
    """
    if place == "local":
        return lambda arguments, log: LocalWorker(arguments, log, workers)
    if place == "slurm":
        return _on_slurm(folder, options)
    if place == "ray":
        return _on_ray(options)
    raise ValueError(f"unknown place {place!r} for workers; choose local, slurm or ray")


class LocalWorker:
    """A local process with an equal part of the cores; on Linux it exits when this process exits."""

    def __init__(self, arguments: Sequence[str], log: Path, workers: int) -> None:
        environment = {**os.environ, processes.LAUNCHER: str(os.getpid())}
        if workers > 1:
            environment |= dict.fromkeys(_THREAD_VARIABLES, str(max(processes.cores() // workers, 1)))
            environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # Workers share an accelerator.
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                _command(arguments),
                env=environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the worker only through this process, and once.
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "transfer_jax.cli", *arguments]


def _on_slurm(folder: Path, options: Mapping[str, Any]) -> Start:
    require("submitit")

    import submitit

    settings = {"name": "transfer-jax", "timeout_min": 24 * 60, **options}
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=settings.pop("cluster", None))
    executor.update_parameters(**settings)

    def start(arguments: Sequence[str], log: Path) -> Worker:
        command = submitit.helpers.CommandFunction(_command(arguments), verbose=False)
        return _SlurmJob(executor.submit(command))

    return start


class _SlurmJob:
    """A SLURM job; submitit writes its log."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        return 0 if self._job.state in ("COMPLETED", "FINISHED") and not self._job.exception() else 1

    def stop(self) -> None:
        self._job.cancel()

    def kill(self) -> None:
        self._job.cancel()


def _on_ray(options: Mapping[str, Any]) -> Start:
    require("ray")

    import ray

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    run: Any = ray.remote(**{"num_cpus": 1, "max_retries": 0, **options})(subprocess.call)
    return lambda arguments, log: _RayTask(ray, run.remote(_command(arguments)))


class _RayTask:
    """A Ray task."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def poll(self) -> int | None:
        done, _ = self._ray.wait([self._reference], timeout=0)
        if not done:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.RayError:
            return 1

    def stop(self) -> None:
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)
