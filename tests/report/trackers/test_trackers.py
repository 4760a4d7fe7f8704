import logging
from typing import ClassVar

import pytest

from transfer_jax.report.metrics_log import MetricsLog, read_metrics
from transfer_jax.report.trackers import TRACKERS, Trackers, check_installed, scalars, trackers


class Recorder:
    """A tracker that records its calls."""

    calls: ClassVar[list] = []

    def __init__(self, id: str) -> None:
        self.id = id

    def log(self, step, values):
        self.calls.append((self.id, step, dict(values)))

    def log_image(self, step, path):
        self.calls.append((self.id, step, path.name))

    def close(self, *, finished):
        self.calls.append((self.id, finished))


class Broken(Recorder):
    """A tracker that fails at its second line and when it is closed."""

    lines = 0

    def log(self, step, values):
        self.lines += 1
        if self.lines > 1:
            raise ConnectionResetError("the network\nis down")
        super().log(step, values)


def unreachable(workdir, config, known):
    raise TimeoutError("no answer")


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    monkeypatch.setattr(Recorder, "calls", [])
    monkeypatch.setattr(
        trackers,
        "TRACKERS",
        {
            "a": ("json", lambda workdir, config, known: Recorder(known or "a1")),
            "b": ("json", lambda workdir, config, known: Recorder(known or "b1")),
            "broken": ("json", lambda workdir, config, known: Broken(known or "broken1")),
            "far": ("json", unreachable),
            "missing": ("no_such_package_1", unreachable),
        },
    )
    return Recorder.calls


def test_the_numbers_of_a_line():
    line = {
        "phase": "head",
        "epoch": 3,
        "rates": {"head": 0.5, "top": 0},
        "order": "ab",
        "auc": None,
        "flag": True,
    }
    assert scalars({**line, "confusion": [[1, 2]]}, "train") == {
        "train/epoch": 3.0,
        "train/rates/head": 0.5,
        "train/rates/top": 0.0,
    }


def test_trackers_get_the_lines_of_the_file(tmp_path, calls):
    (tmp_path / "curves.png").touch()
    trackers_of_run = Trackers(["a"], tmp_path, {})
    log = MetricsLog(tmp_path / "metrics.jsonl", trackers=trackers_of_run)
    log.write(2, "train", phase="head", loss=0.5)
    log.write(2, "proof", phase="head", frozen={"x": "ab"})
    trackers_of_run.finish(2, {"accuracy": 0.75, "confusion": [[1]]}, [tmp_path / "curves.png"])
    trackers_of_run.close(finished=True)
    assert calls == [
        ("a1", 2, {"train/loss": 0.5}),
        ("a1", 2, {"final/accuracy": 0.75}),
        ("a1", 2, "curves.png"),
        ("a1", True),
    ]


def test_a_resumed_run_logs_nothing_twice(tmp_path, calls):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, trackers=Trackers(["a"], tmp_path, {}))
    for step in (1, 2, 3):
        log.write(step, "train", loss=float(step))
    log = MetricsLog(path, resume_step=1, trackers=Trackers(["a"], tmp_path, {}))
    for step in (2, 3, 4):
        log.write(step, "train", loss=float(step))
    log.write(3, "evaluation", accuracy=0.5)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4, 3]
    assert calls == [
        *(("a1", step, {"train/loss": float(step)}) for step in (1, 2, 3, 4)),
        ("a1", 3, {"evaluation/accuracy": 0.5}),
    ]


def test_a_new_tracker_gets_all_earlier_lines(tmp_path, calls):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, trackers=Trackers(["a"], tmp_path, {}))
    for step in (1, 2, 3):
        log.write(step, "train", loss=float(step))
    calls.clear()
    log = MetricsLog(path, resume_step=2, trackers=Trackers(["a", "b"], tmp_path, {}))
    log.write(3, "train", loss=3.0)
    log.write(4, "train", loss=4.0)
    assert [(id, step) for id, step, _ in calls] == [("b1", 1), ("b1", 2), ("b1", 3), ("a1", 4), ("b1", 4)]


def test_a_failing_tracker_warns_once_and_the_others_continue(tmp_path, calls, caplog):
    trackers_of_run = Trackers(["broken", "a"], tmp_path, {})
    log = MetricsLog(tmp_path / "metrics.jsonl", trackers=trackers_of_run)
    for step in (1, 2, 3):
        log.write(step, "train", loss=1.0)
    trackers_of_run.close(finished=True)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("No tracker broken: ConnectionResetError: the network is down.")
    assert [entry[:2] for entry in calls if entry[0] == "a1"] == [
        ("a1", 1),
        ("a1", 2),
        ("a1", 3),
        ("a1", True),
    ]
    assert [entry[:2] for entry in calls if entry[0] == "broken1"] == [("broken1", 1)]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3


def test_an_unreachable_tracker_does_not_stop_a_run(tmp_path, calls, caplog):
    Trackers(["far", "a"], tmp_path, {}).log_line({"step": 1, "kind": "train", "loss": 1.0})
    assert calls == [("a1", 1, {"train/loss": 1.0})]
    assert [record.getMessage() for record in caplog.records] == [
        "No tracker far: TimeoutError: no answer. The run continues without it; its metrics are in "
        "metrics.jsonl."
    ]


def test_a_tracker_that_exits_does_not_end_the_run(tmp_path, calls, caplog, monkeypatch):
    def leave(workdir, config, known):
        raise SystemExit("no key")

    monkeypatch.setitem(trackers.TRACKERS, "far", ("json", leave))
    Trackers(["far", "a"], tmp_path, {}).close(finished=True)
    assert calls == [("a1", True)]
    assert "SystemExit: no key" in caplog.text


@pytest.mark.parametrize("content", ["[]", "{", '{"a": 3}'])
def test_damaged_ids_start_new_runs(tmp_path, calls, content):
    (tmp_path / "trackers.json").write_text(content)
    Trackers(["a"], tmp_path, {}).log_line({"step": 1, "kind": "train", "loss": 1.0})
    assert calls == [("a1", 1, {"train/loss": 1.0})]


def test_a_full_disk_at_the_start_does_not_end_the_run(tmp_path, calls, caplog, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trackers, "write_text", full)
    Trackers(["a"], tmp_path, {}).log_line({"step": 1, "kind": "train", "loss": 1.0})
    assert calls == [("a1", 1, {"train/loss": 1.0})]
    assert "No trackers.json: OSError: [Errno 28] No space left on device." in caplog.text


def test_a_missing_package_is_named_with_its_install_command():
    check_installed(["a", "b"])
    with pytest.raises(ModuleNotFoundError, match="is not installed; pip install"):
        check_installed(["a", "missing"])


def test_each_tracker_has_an_extra(request):
    text = (request.config.rootpath / "pyproject.toml").read_text()
    for name, (package, _) in TRACKERS.items():
        assert f'\n{name} = ["{package}' in text
