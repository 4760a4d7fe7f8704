import sys
import time
from pathlib import Path

import pytest

from transfer_jax.distributed import processes
from transfer_jax.studies import executors
from transfer_jax.studies.executors import Worker, starter

PROGRAM = """
import os, pathlib, sys, time
print(os.environ.get("NPROC"))
running = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else pathlib.Path.cwd()
running.exists() or running.touch()
end = time.monotonic() + float(sys.argv[1])
while running.exists() and time.monotonic() < end:
    time.sleep(0.02)
sys.exit({})
"""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch):
    """Replaces the command line by a short program that sleeps and exits with a code."""

    def replaced(code: int = 0) -> None:
        monkeypatch.setattr(
            executors, "_command", lambda given: [sys.executable, "-c", PROGRAM.format(code), *given]
        )

    return replaced


def end_of(worker: Worker, seconds: float = 600) -> int:
    deadline = time.monotonic() + seconds
    while (code := worker.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return code


def test_local_workers_share_the_cores(start, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.delenv("NPROC", raising=False)
    start()
    for workers, cores in ((1, "None"), (2, "4"), (16, "1")):
        log = tmp_path / str(workers)
        assert end_of(starter("local", workers, tmp_path, {})(["0"], log)) == 0
        assert log.read_text().split() == [cores]


def test_local_workers_are_stopped_and_killed(start, tmp_path):
    start()
    run = starter("local", 1, tmp_path, {})
    workers = [run(["600"], tmp_path / "log") for _ in range(2)]
    assert [worker.poll() for worker in workers] == [None, None]
    workers[0].stop()
    workers[1].kill()
    assert [end_of(worker) for worker in workers] == [-15, -9]


@pytest.mark.parametrize("code", [0, 3])
def test_jobs_of_submitit(start, tmp_path, code):
    """The local executor of submitit replaces SLURM."""
    pytest.importorskip("submitit")
    start(code)
    run = starter("slurm", 1, tmp_path, {"cluster": "local", "timeout_min": 15})
    assert end_of(run(["0"], tmp_path / "log")) == (1 if code else 0)
    assert list((tmp_path / "jobs").glob("*.out"))


def test_a_job_is_cancelled(start, tmp_path):
    pytest.importorskip("submitit")
    start()
    running = tmp_path / "running"
    job = starter("slurm", 1, tmp_path, {"cluster": "local"})(["600", str(running)], tmp_path / "log")
    deadline = time.monotonic() + 600
    while not running.exists():  # submitit ignores a signal that comes while it starts
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.stop()
    assert end_of(job) == 1
    running.unlink()  # ends the program, which submitit leaves running


@pytest.mark.extended
@pytest.mark.parametrize("code", [0, 3])
def test_tasks_of_ray(start, tmp_path, code):
    ray = pytest.importorskip("ray")
    start(code)
    try:
        assert end_of(starter("ray", 1, tmp_path, {})(["0"], tmp_path / "log")) == code
    finally:
        ray.shutdown()


@pytest.mark.parametrize(("place", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_named(place, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"{package} is not installed; pip install 'transfer_jax\[{place}\]'"
    with pytest.raises(ModuleNotFoundError, match=message):
        starter(place, 1, tmp_path, {})


def test_an_unknown_place_is_refused():
    with pytest.raises(ValueError, match="unknown place 'moon' for workers; choose local, slurm or ray"):
        starter("moon", 1, Path(), {})  # type: ignore[arg-type]
