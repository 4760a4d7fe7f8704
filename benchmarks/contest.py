"""Timing of programs side by side: one process each, in turn, several rounds, medians; and their memory."""

import contextlib
import dataclasses
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from transfer_jax.quiet_libtpu import quiet_without_tpu
from transfer_jax.report.console import OUT, table
from transfer_jax.storage.atomic_write import write_text

quiet_without_tpu()  # All benchmarks import this module.

Build = Callable[[], Callable[[], Any]]
"""A function that prepares a contender in its own process; it returns a call that waits for its results."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """The times of a contender, in seconds.

    Attributes:
        prepare: From the start of its process to the end of its first call: imports, loading, compiling.
        calls: Each timed call.
        peak: Peak memory of its process, in bytes.
        facts: Facts that the contender reports: the attribute `facts` of its function.
    """

    prepare: float
    calls: list[float]
    peak: int
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def median(self) -> float:
        """The median time of a call."""
        return statistics.median(self.calls)


def contest(contenders: Mapping[str, Build], *, rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Times each contender once in each round, in turn, so that drifts of the machine affect all of them."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Connection, float]] = {}
    calls: dict[str, list[float]] = {name: [] for name in contenders}
    timings = {}
    with contextlib.ExitStack() as stack:
        for name, build in contenders.items():
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(build, there))  # Not a daemon: it may have workers.
            process.start()
            stack.callback(process.terminate)
            there.close()
            workers[name] = here, here.recv()
        for index in range(warmup + rounds):
            for name, (pipe, _) in workers.items():
                pipe.send("go")
                seconds = pipe.recv()
                if index >= warmup:
                    calls[name].append(seconds)
        for name, (pipe, prepare) in workers.items():
            pipe.send("stop")
            timings[name] = Timing(prepare, calls[name], *pipe.recv())
    return timings


def _work(build: Build, pipe: Connection) -> None:
    started = time.perf_counter()
    call = build()
    call()
    pipe.send(time.perf_counter() - started)
    while pipe.recv() == "go":
        started = time.perf_counter()
        call()
        pipe.send(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pipe.send((peak, getattr(call, "facts", {})))


def report(
    title: str, rows: list[dict[str, Any]], out: Path | None, *, packages: tuple[str, ...] = ("jax", "torch")
) -> None:
    """Prints rows as a table, and writes them."""
    print_rows(title, rows)
    if out is not None:
        write_report(title, rows, out, packages=packages)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints rows as a table."""
    cells = [
        [f"{value:.3g}" if isinstance(value, float) else str(value) for value in map(row.get, rows[0])]
        for row in rows
    ]
    OUT.print(table(title, list(rows[0]), cells))


def write_report(title: str, rows: list[dict[str, Any]], out: Path, *, packages: tuple[str, ...]) -> None:
    """Writes rows as JSON with the machine and the versions."""
    write_text(out, json.dumps({"title": title, "machine": machine(packages), "rows": rows}, indent=1))


def read_rows(out: Path | None) -> list[dict[str, Any]]:
    """Returns the rows that an earlier start has written; none if there is no such file."""
    return json.loads(out.read_text())["rows"] if out is not None and out.exists() else []


def machine(packages: tuple[str, ...]) -> dict[str, str]:
    """Returns the processor, the Python version and the versions of packages."""
    found = {"processor": _processor(), "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.machine())
