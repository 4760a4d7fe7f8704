"""Where workers run: as processes of this machine, as jobs of SLURM, or as tasks of Ray."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from transfer_jax.distributed import processes

Place = Literal["local", "slurm", "ray"]
_POOLS = ("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What XLA, OpenMP and the libraries of NumPy read the number of their threads from."""


class Worker(Protocol):
    """A worker that was started."""

    def poll(self) -> int | None:
        """Its exit code; None while it works. 75 and 130 say that it was told to stop, and has saved."""
        ...

    def stop(self) -> None:
        """Tells it to save and end."""
        ...

    def kill(self) -> None:
        """Ends it at once."""
        ...


Start = Callable[[Sequence[str], Path], Worker]
"""Starts a worker: arguments of `transfer-jax`, and the file that it may write to."""


def starter(place: Place, workers: int, folder: Path, options: Mapping[str, Any]) -> Start:
    """What starts a worker at a place.

    Args:
        place: `local`, `slurm` or `ray`.
        workers: How many there will be; those of one machine share its cores.
        folder: The folder of the study.
        options: What SLURM is asked for (parameters of submitit's `AutoExecutor`), or Ray (of `ray.remote`).

    Raises:
        ModuleNotFoundError: If what talks to the scheduler is not installed.
        ValueError: If there is no such place.
    """
    if place == "local":
        return lambda arguments, log: LocalWorker(arguments, log, workers)
    if place == "slurm":
        return _on_slurm(folder, options)
    if place == "ray":
        return _on_ray(options)
    raise ValueError(f"workers run on local, slurm or ray, not on {place!r}")


class LocalWorker:
    """A process of this machine, with its share of the cores; on Linux it ends with this one."""

    def __init__(self, arguments: Sequence[str], log: Path, workers: int) -> None:
        environment = {**os.environ, processes.LAUNCHER: str(os.getpid())}
        if workers > 1:
            environment |= dict.fromkeys(_POOLS, str(max(processes.cores() // workers, 1)))
            environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # They share an accelerator.
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                _command(arguments),
                env=environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches it through this process only, and once.
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
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("jobs of SLURM need the package submitit: pip install submitit") from error
    settings = {"name": "transfer-jax", "timeout_min": 24 * 60, **options}
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=settings.pop("cluster", None))
    executor.update_parameters(**settings)

    def start(arguments: Sequence[str], log: Path) -> Worker:
        command = submitit.helpers.CommandFunction(_command(arguments), verbose=False)
        return _Job(executor.submit(command))

    return start


class _Job:
    """A job of SLURM, which keeps its own log."""

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
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("tasks of Ray need the package ray: pip install ray") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    run: Any = ray.remote(**{"num_cpus": 1, "max_retries": 0, **options})(subprocess.call)
    return lambda arguments, log: _Task(ray, run.remote(_command(arguments)))


class _Task:
    """A task of Ray."""

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
