import json

from transfer_jax.report.metrics_log import MetricsLog, read_metrics


def test_a_line_is_an_object(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(3, "train", loss=0.5, phase="head")
    log.write(6, "evaluation", accuracy=0.75)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == read_metrics(tmp_path / "metrics.jsonl")
    assert lines == [
        {"step": 3, "kind": "train", "loss": 0.5, "phase": "head"},
        {"step": 6, "kind": "evaluation", "accuracy": 0.75},
    ]


def test_a_resumed_run_writes_its_last_lines_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in (1, 2, 3):
        log.write(step, "train", loss=float(step))
    log = MetricsLog(path, resume_step=2)
    log.write(3, "train", loss=-3.0)
    assert [line["loss"] for line in read_metrics(path)] == [1.0, 2.0, -3.0]
    MetricsLog(path)
    assert read_metrics(path) == []
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).write(1, "train", loss=0.5)
    whole = path.read_text()
    path.write_text(whole + whole[:9])
    assert [line["step"] for line in read_metrics(path)] == [1]
    MetricsLog(path, resume_step=1).write(2, "train", loss=0.25)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
