"""The wall time of a run by activity."""

import contextlib
import gzip
import json
import time
from pathlib import Path

import pytest

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.runs import goodput as module
from transfer_jax.runs.goodput import PARTS, Goodput
from transfer_jax.runs.result import Result


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Replaces the time by values that only the test changes."""
    now = {"monotonic": 100.0, "time": 5000.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: now["monotonic"])
    monkeypatch.setattr(module.time, "time", lambda: now["time"])
    return now


def pass_time(clock: dict, seconds: float) -> None:
    for name in clock:
        clock[name] += seconds


def test_seconds_by_activity(clock):
    goodput = Goodput()
    pass_time(clock, 3)
    with goodput.on("step"):
        pass_time(clock, 10)
        with goodput.on("checkpoint"):
            pass_time(clock, 2)
        pass_time(clock, 4)
        goodput.move(1.5, "step", "compile")
    pass_time(clock, 1)
    with contextlib.suppress(KeyboardInterrupt), goodput.on("evaluate"):
        pass_time(clock, 0.5)
        raise KeyboardInterrupt
    assert goodput.seconds == {"start_up": 4, "step": 12.5, "checkpoint": 2, "compile": 1.5, "evaluate": 0.5}
    assert goodput.share == 12.5 / 20.5


@pytest.mark.parametrize(
    ("seconds", "exchange", "verdict"),
    [
        ({"step": 9.0, "wait": 1.0}, 0.1, "compute-bound"),
        ({"step": 9.0, "wait": 1.0}, 0.4, "communication-bound"),
        ({"step": 7.0, "wait": 3.0}, 0.4, "input-bound"),
        ({"step": 2.0, "compile": 2.5, "lost": 2.0}, 0.0, "compile-bound"),
        ({"step": 7.0, "compile": 6.5}, 0.0, "compute-bound"),
        ({"step": 5.0, "compile": 4.0, "lost": 2.5}, 0.0, "restart-bound"),
        ({"step": 1.0, "extract": 2.5}, 0.0, "extraction-bound"),
        ({}, 0.0, "compute-bound"),
    ],
)
def test_verdict(seconds, exchange, verdict):
    assert Goodput(seconds, exchange=exchange).verdict.startswith(f"{verdict}: ")


def test_repeated_steps_are_lost_time(clock, tmp_path: Path):
    goodput = Goodput({"step": 50.0})
    pass_time(clock, 7)
    goodput.save(tmp_path)  # The last write before a kill.
    pass_time(clock, 1000)
    again = Goodput({"step": 50.0})
    again.lose(tmp_path)
    assert again.seconds["lost"] == 7
    stopped = Goodput({"step": 60.0})  # The checkpoint is newer than the last write.
    stopped.lose(tmp_path)
    assert stopped.seconds["lost"] == 0
    Goodput().lose(tmp_path / "nothing there")


@pytest.mark.parametrize("jump", [-7200.0, 1e9])
def test_a_clock_that_is_set_changes_nothing(clock, tmp_path: Path, jump):
    goodput = Goodput({"step": 50.0})
    goodput.save(tmp_path)
    pass_time(clock, 3)
    clock["time"] += jump
    goodput.save(tmp_path, now=False)
    again = Goodput({"step": 50.0})
    again.lose(tmp_path)
    assert again.seconds["lost"] == 3


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": 1}', '{"seconds": {"step": "x"}}'])
def test_a_damaged_file_counts_nothing_as_lost(tmp_path: Path, content):
    (tmp_path / module.FILE).write_text(content)
    goodput = Goodput({"step": 50.0})
    goodput.lose(tmp_path)
    assert goodput.seconds == {"step": 50.0}


def test_goodput_is_written_every_few_seconds(clock, tmp_path: Path):
    goodput = Goodput()
    goodput.save(tmp_path, now=False)
    first = json.loads((tmp_path / module.FILE).read_text())["alive"]
    pass_time(clock, 1)
    goodput.save(tmp_path, now=False)
    assert json.loads((tmp_path / module.FILE).read_text())["alive"] == first
    pass_time(clock, 2)
    goodput.save(tmp_path, now=False)
    assert json.loads((tmp_path / module.FILE).read_text())["alive"] == first + 3


@pytest.fixture(scope="module")
def finished(image_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """Returns the result of a run with a profile, and its seconds."""
    phases = (
        Phase(name="head", train="head", epochs=4, learning_rate=0.01),
        Phase(name="all", train="all_()", epochs=2, learning_rate=0.001, augment=True),
    )
    config = TrainConfig(
        images=str(image_folder),
        model="efficientnet_lite_tiny",
        weights="none",
        image_size=32,
        batch_size=8,
        schedule=Schedule(phases),
    )
    began = time.monotonic()
    result = fit(config, tmp_path_factory.mktemp("run"), profile=True)
    return result, time.monotonic() - began


def test_the_seconds_add_up_to_the_time_of_the_run(finished):
    result, seconds = finished
    found = result.goodput
    assert found["seconds"].keys() == PARTS.keys()
    assert sum(found["seconds"].values()) == pytest.approx(seconds, rel=0.05, abs=0.3)
    for part in ("step", "compile", "extract", "evaluate", "checkpoint"):
        assert found["seconds"][part] > 0, part
    assert found["seconds"]["lost"] == 0
    assert min(found["seconds"].values()) >= 0


def test_profile_files(finished):
    result, _ = finished
    (trace,) = (result.workdir / "profile").rglob("perfetto_trace.json.gz")
    names = {event.get("name") for event in json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]}
    assert any("train_step" in str(name) or "Execut" in str(name) for name in names)
    assert list((result.workdir / "profile").rglob("*.xplane.pb"))


@pytest.mark.parametrize("content", [b"", b'{"seconds"', b"\xff"])
def test_a_result_without_a_readable_file(tmp_path: Path, content):
    result = Result(workdir=tmp_path, phases=())
    assert result.goodput["seconds"] == {}
    (tmp_path / "goodput.json").write_bytes(content)
    assert result.goodput == {"seconds": {}, "verdict": "goodput.json is missing or damaged"}
