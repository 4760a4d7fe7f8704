"""The command `bench` on the toy network."""

import json

import pytest

from transfer_jax import cli
from transfer_jax.planning.peaks import Peak
from transfer_jax.runs.bench import Bench, BenchRow

OPTIONS = ("bench", "toy", "--batch-sizes", "4", "--classes", "3", "--seconds", "0.01")


@pytest.fixture(autouse=True)
def quick(monkeypatch, toy):
    monkeypatch.setattr(Bench, "peak", lambda self: Peak(1e9, "published"))


def test_a_table_a_line_and_a_file(capfd, tmp_path):
    out = tmp_path / "rows.json"
    assert cli.main([*OPTIONS, "--trains", "head", "--cached", "--out", str(out)]) == 0
    shown = capfd.readouterr().out
    assert "features at pre_logits" in " ".join(shown.split())
    assert "peak of a device 0.001 TFLOP/s (published)" in shown
    content = json.loads(out.read_text())
    assert content["versions"]["jax"] in shown
    assert content["precision"] == "float32"
    assert [row["boundary"] for row in content["rows"]] == [None, "pre_logits"]
    assert f"{content['rows'][0]['mfu']:.1%}" in shown


def test_ctrl_c_keeps_the_finished_rows(capfd, tmp_path, monkeypatch):
    def interrupted(self, peak, progress):
        yield BenchRow(model="toy", trains="head", boundary=None, batch_size=4, images_per_second=123.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "rows", interrupted)
    out = tmp_path / "rows.json"
    assert cli.main([*OPTIONS, "--out", str(out)]) == 130
    captured = capfd.readouterr()
    assert "123" in captured.out
    assert "the rows above are finished ones" in captured.err
    assert json.loads(out.read_text())["rows"][0]["images_per_second"] == 123


@pytest.mark.parametrize(
    ("extra", "message"),
    [(("--trains", "blocks.99"), "blocks.99"), (("--out", "rows.csv"), "--out must end in .json")],
)
def test_errors_are_one_line(extra, message, capfd):
    assert cli.main([*OPTIONS, *extra]) == 2
    assert message in capfd.readouterr().err
