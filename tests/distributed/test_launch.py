"""Restarts of the launcher."""

import os
import signal
import subprocess
import sys

import pytest

from transfer_jax.distributed import launch as module
from transfer_jax.distributed.launch import PREEMPTED, launch


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch):
    """Attempts that end with given codes, without processes; and the pauses between them."""

    def given(*codes: int, asked_at: int = -1) -> tuple[list[int], list[float]]:
        left, pauses, done = [*codes], [], []

        def attempt(*arguments) -> int:
            done.append(left[0])
            if len(done) == asked_at:
                os.kill(os.getpid(), signal.SIGTERM)
            return left.pop(0)

        monkeypatch.setattr(module, "_run_once", attempt)
        monkeypatch.setattr(module, "_sleep", lambda seconds, asked: pauses.append(seconds))
        return done, pauses

    return given


@pytest.fixture
def run_cli():
    def run(*arguments: str):
        command = [sys.executable, "-m", "transfer_jax.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)

    return run


@pytest.mark.parametrize(
    ("codes", "expected", "pauses"),
    [
        ([0], 0, []),
        ([2], 2, []),
        ([130], 130, []),
        ([-9, 0], 0, [0.5]),
        ([PREEMPTED, 1, -6, 0], 0, [0.5, 1.0, 2.0]),
        ([-9, -9, -9, -9], -9, [0.5, 1.0, 2.0]),
        ([1, 2], 2, [0.5]),
    ],
)
def test_restarts(attempts, codes, expected, pauses):
    done, waited = attempts(*codes)
    lines: list[str] = []
    assert launch(["train"], 2, restarts=3, pause=0.5, log=lines.append) == expected
    assert (done, waited) == (codes, pauses)
    assert len(lines) == len(pauses)
    assert all("restarting all in" in line for line in lines)


def test_no_restart_after_a_signal(attempts):
    before = signal.getsignal(signal.SIGTERM)
    done, _ = attempts(PREEMPTED, 0, asked_at=1)
    assert launch(["train"], 2) == PREEMPTED
    assert done == [PREEMPTED]
    assert signal.getsignal(signal.SIGTERM) is before


def test_user_errors_are_printed_once(run_cli):
    done = run_cli("launch", "--processes", "2", "--", "train", "no such config")
    assert done.returncode == 2
    assert "no config 'no such config'" in done.stderr
    assert "restarting" not in done.stderr


def test_incomplete_addresses_are_an_error(run_cli, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    done = run_cli("train", "--images", "x")
    assert done.returncode == 2
    expected = "JAX_NUM_PROCESSES, JAX_PROCESS_ID must be set too, because JAX_COORDINATOR_ADDRESS is set"
    assert expected in " ".join(done.stderr.split())
