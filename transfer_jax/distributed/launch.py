"""The launcher `transfer-jax launch`, which starts, watches and restarts processes on this machine."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from transfer_jax.distributed import processes

PREEMPTED = 75
"""Exit code of a run that saved a checkpoint after SIGTERM (EX_TEMPFAIL). The same command resumes it."""
_NO_RESTART = (0, 2, 130)
"""Exit codes without a restart: success, an error that the user must fix, and Ctrl-C."""
_POLL = 0.1
_LONGEST_PAUSE = 60.0


def launch(
    command: Sequence[str],
    count: int,
    *,
    devices: int | None = None,
    restarts: int = 3,
    pause: float = 1.0,
    grace: float = 60.0,
    heartbeat: int = 20,
    log: Callable[[str], None] = print,
) -> int:
    """Runs a command in several connected processes, and restarts all of them if one dies.

    A run resumes from its last checkpoint. SIGTERM and Ctrl-C are forwarded to all processes, which save at
    the same step. Processes that do not end within the grace period are killed. On Linux, the processes end
    when the launcher ends.

    Args:
        command: Arguments of `transfer-jax`, such as `train …`.
        count: Number of processes.
        devices: Number of CPU devices of each process; None for JAX's default.
        restarts: The largest number of restarts.
        pause: Seconds before the first restart. The pause doubles with each restart, up to a minute.
        grace: Seconds that processes have to end after a signal.
        heartbeat: Seconds without a heartbeat after which a process counts as dead.
        log: A function that is called with each line to print.

    Returns:
        The exit code: 0 for success, 75 or 130 if this process received SIGTERM or Ctrl-C, else the exit code
        of the process that failed.
    """
    signals: list[int] = []
    earlier = {
        number: signal.signal(number, lambda number, frame: signals.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        for attempt in range(restarts + 1):
            code = _run_once(command, count, devices, heartbeat, grace, signals)
            if signals or code in _NO_RESTART or attempt == restarts:
                return code
            seconds = min(pause * 2**attempt, _LONGEST_PAUSE)
            log(f"a process ended with {_describe(code)}; restarting all in {seconds:g} s")
            _sleep(seconds, signals)
            if signals:
                return PREEMPTED
        raise AssertionError("the last attempt returns")
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _run_once(
    command: Sequence[str],
    count: int,
    devices: int | None,
    heartbeat: int,
    grace: float,
    signals: list[int],
) -> int:
    """Starts the processes, waits for their end, and returns the exit code of the first that failed."""
    environment = {
        **os.environ,
        processes.COORDINATOR: f"127.0.0.1:{_free_port()}",
        processes.COUNT: str(count),
        processes.LAUNCHER: str(os.getpid()),
        processes.HEARTBEAT: str(heartbeat),
    }
    if devices is not None:
        environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "transfer_jax.cli", *command],
            env={**environment, processes.INDEX: str(index)},
            start_new_session=True,  # Ctrl-C reaches them only once, through this process.
        )
        for index in range(count)
    ]
    forwarded, deadline, failed = 0, float("inf"), None
    try:
        while any(child.poll() is None for child in children):
            if len(signals) > forwarded:
                for child in children:
                    child.send_signal(signals[forwarded])
                forwarded += 1
                deadline = min(deadline, time.monotonic() + grace)
            codes = [child.poll() for child in children]
            failures = [code for code in codes if code]
            if failures and failed is None:
                failed = min(failures)  # A signal has a negative code and comes first.
                # Processes that save and stop get the grace period; others may wait for the lost process.
                deadline = min(deadline, time.monotonic() + (grace if failed in (PREEMPTED, 130) else 1.0))
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
        for child in children:
            child.wait()
    if failed is None:
        failed = next((child.returncode for child in children if child.returncode), 0)
    return failed


def _describe(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _sleep(seconds: float, signals: list[int]) -> None:
    until = time.monotonic() + seconds
    while not signals and time.monotonic() < until:
        time.sleep(_POLL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
