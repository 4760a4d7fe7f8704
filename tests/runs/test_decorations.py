import json
import logging
from pathlib import Path

import pytest

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.commands.report import report
from transfer_jax.diagnostics import redraw
from transfer_jax.report.trackers import TRACKERS
from transfer_jax.runs.decorations import draw_run, write_report

DRAWN = ("curves.png", "confusion.png", "timeline.png", "mistakes/mistakes.json", "report.html")
PHASES = ("the/head $x$_$", "../../CON\n\udcff")


@pytest.fixture(scope="module")
def config(toy, image_folder) -> TrainConfig:
    phases = (
        Phase(name=PHASES[0], train="head", epochs=1, learning_rate=1e-5),
        Phase(name=PHASES[1], train="head", epochs=1, learning_rate=1e-5),
    )
    settings = {"weights": "none", "batch_size": 12, "threads": 1}
    return TrainConfig(images=str(image_folder), model=toy, schedule=Schedule(phases), **settings)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "a run"
    fit(config, workdir)
    return workdir


def failing(*arguments, **options):
    raise ValueError("two\nlines")


class Broken:
    """A tracker that fails at everything but its start."""

    id = "1"
    log = log_image = close = failing


def files(workdir: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}


def test_a_run_is_drawn(finished):
    assert all((finished / name).is_file() for name in DRAWN)
    timeline = json.loads((finished / "timeline.json").read_text())
    assert len(timeline["planned"]) == len(timeline["executed"]) == 2
    records = sorted((finished / "certificates").iterdir())
    assert [record.name[:3] for record in records] == ["01-", "02-"]
    assert [json.loads(record.read_text())["phase"] for record in records] == [*PHASES]


def test_a_run_whose_decorations_fail_is_finished(config, tmp_path, monkeypatch, caplog):
    workdir = tmp_path / "run"
    monkeypatch.setitem(TRACKERS, "tensorboard", ("json", lambda *_: Broken()))
    monkeypatch.setitem(TRACKERS, "wandb", ("json", failing))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr("transfer_jax.report.run_figures.draw_curves", failing)
        patch.setattr("transfer_jax.report.run_figures.draw_confusion", failing)
        patch.setattr("transfer_jax.report.rate_figures.draw_timelines", failing)
        patch.setattr("transfer_jax.report.misclassified._jpeg", failing)
        patch.setattr("transfer_jax.report.page.run_page.write_run_report", failing)
        patch.setattr("transfer_jax.runs.environment.environment", failing)
        patch.setattr("transfer_jax.runs.artifacts.planned_timeline", failing)
        patch.setattr("transfer_jax.runs.phase_end.measure_exchange_seconds", failing)
        changed = TrainConfig.from_json({**config.to_json(), "trackers": ["tensorboard", "wandb"]})
        result = fit(changed, workdir)
    assert [phase.name for phase in result.phases] == [*PHASES]
    assert (workdir / "model" / "model.json").is_file()
    assert (workdir / "predictions.csv").is_file()
    assert not any((workdir / name).is_file() for name in DRAWN)
    messages = [record.getMessage() for record in caplog.records]
    failed = ["environment.json", "timeline.json", "tracker wandb", "tracker tensorboard", "curves.png"]
    failed[4:4] = ["time of the gradient exchange"] * 2  # For each phase.
    failed += ["confusion.png", "timeline.png", "images of misclassified examples", "report.html"]
    assert [message.split(":")[0] for message in messages] == [f"No {name}" for name in failed]
    assert all("ValueError: two lines. The run " in message for message in messages[6:])
    command = f"`transfer-jax report {workdir}` makes it again."
    assert all(message.endswith(command) for message in messages[6:])

    before = files(workdir)
    assert fit(changed, workdir).metrics == result.metrics
    assert {path: time for path, time in files(workdir).items() if ".lock" not in path} == {
        path: time for path, time in before.items() if ".lock" not in path
    }
    report((workdir,))
    assert all((workdir / name).is_file() for name in DRAWN)


def test_ctrl_c_leaves_a_finished_run(config, tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("transfer_jax.report.run_figures.draw_confusion", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(config, tmp_path / "run")
    written = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert len(fit(config, tmp_path / "run").phases) == 2
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == written
    assert (tmp_path / "run" / "curves.png").is_file()
    assert not (tmp_path / "run" / "confusion.png").exists()


@pytest.mark.parametrize("name", DRAWN)
def test_a_deleted_file_is_made_again(finished, name):
    (finished / name).unlink()
    report((finished,))
    assert (finished / name).is_file()


def test_images_that_are_there_are_not_read_again(finished, monkeypatch, caplog):
    monkeypatch.setattr("transfer_jax.diagnostics.finished_run.FinishedRun.images", property(failing))
    report((finished,))
    assert caplog.records == []


def test_missing_images_leave_the_other_outputs(finished, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("transfer_jax.diagnostics.finished_run.FinishedRun.images", property(failing))
    kept = (finished / "mistakes" / "mistakes.json").read_bytes()
    (finished / "mistakes" / "mistakes.json").unlink()
    (finished / "curves.png").unlink()
    report((finished,))
    assert (finished / "curves.png").is_file()
    assert [record.getMessage() for record in caplog.records] == [
        "No images of misclassified examples: ValueError: two lines."
    ]
    (finished / "mistakes" / "mistakes.json").write_bytes(kept)


def test_a_run_that_is_not_finished_is_not_redrawn(finished, tmp_path):
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    with pytest.raises(ValueError, match="is not finished"):
        redraw(tmp_path)


def test_a_run_of_arrays_is_drawn_again_with_its_images(config, toy_images, tmp_path, caplog):
    workdir = tmp_path / "run"
    fit(TrainConfig.from_json({**config.to_json(), "images": "arrays"}), workdir, dataset=toy_images)
    (workdir / "mistakes" / "mistakes.json").unlink()
    report((workdir,))
    (record,) = caplog.records
    assert f"transfer_jax.diagnostics.redraw({str(workdir)!r}, dataset=images)" in record.getMessage()
    assert redraw(workdir, dataset=toy_images) == workdir / "report.html"
    assert (workdir / "mistakes" / "mistakes.json").is_file()
    assert len(caplog.records) == 1


def test_an_unfinished_run_gets_a_report_only(finished, tmp_path, caplog):
    lines = (finished / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    (tmp_path / "metrics.jsonl").write_text(lines[0])
    report((tmp_path,))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "report.html",
    ]
    assert caplog.records == []


def test_without_matplotlib_there_is_one_warning_for_all_plots(finished, monkeypatch, caplog):
    def missing(*modules):
        raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")

    monkeypatch.setattr("transfer_jax.runs.decorations.require", missing)
    draw_run(finished, failing)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "No plots of a run: matplotlib is not installed; pip install 'transfer_jax[report]'. The run is "
    )
    assert record.getMessage().endswith(f"`transfer-jax report '{finished}'` makes it again.")


def test_a_report_that_fails_is_a_warning(tmp_path, caplog):
    write_report(tmp_path)
    (record,) = caplog.records
    assert record.getMessage().startswith("No report.html: FileNotFoundError: ")
    assert list(tmp_path.iterdir()) == []
