import json
import shutil

import pytest

from transfer_jax.report.page.elements import Chart, Charts, Code, Images, Table
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_page import run_page, write_run_report

ALWAYS = ["Summary", "Schedule", "Curves", "Classes", "Misclassified images"]
DIAGNOSED = ["Calibration", "Groups", "Block statistics", "Saliency maps"]
LAST = ["Time", "Freeze checks", "Reproduce"]


def parts_of(run: RunFiles, title: str) -> list:
    return next(list(section.parts) for section in run_page(run).sections if section.title == title)


def charts_of(run: RunFiles, title: str) -> dict[str, Chart]:
    charts = (each for part in parts_of(run, title) if isinstance(part, Charts) for each in part.charts)
    return {chart.title: chart for chart in charts}


@pytest.mark.parametrize(
    ("settings", "sections"),
    [
        ({"diagnosed": True}, [*ALWAYS, *DIAGNOSED, *LAST]),
        ({}, [*ALWAYS, "Block statistics", *LAST]),
        ({"epochs": 8}, [*ALWAYS[:-1], "Block statistics", *LAST]),
        ({"epochs": 0}, ["Summary", "Schedule", "Time", "Reproduce"]),
    ],
)
def test_a_section_is_there_if_its_files_are(make_run, tmp_path, settings, sections):
    page = run_page(RunFiles.from_workdir(make_run(tmp_path, **settings)))
    assert [section.title for section in page.sections] == sections


def test_names_are_no_markup(make_run, tmp_path):
    text = write_run_report(make_run(tmp_path, diagnosed=True)).read_text()
    assert text.lstrip().startswith("<!doctype html>")
    assert "&lt;b&gt;blue&lt;/b&gt;" in text
    assert "<b>blue" not in text
    assert len(text) < 800_000


def test_cells_show_every_character(make_run, tmp_path):
    workdir = make_run(tmp_path)
    log = workdir / "metrics.jsonl"
    log.write_text(log.read_text().replace('"red"', r'"two\n\udcff <i>"'))
    text = write_run_report(workdir).read_text(encoding="utf-8")
    assert r"two\n\udcff &lt;i&gt;" in text
    assert "<i>" not in text.split("<script")[0]


def test_classes_without_images_are_not_evaluated(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path))
    name = next(iter(run.scores["per_class"]))
    run.scores["per_class"][name] = {"precision": None, "recall": None, "f1": None, "images": 0}
    text, _, table = parts_of(run, "Classes")
    assert text.paragraphs == [f"1 class has no validation image ({name}): trained, and not evaluated."]
    assert table.rows[0] == [name, "-", "-", "-", 0]
    assert table.rows[1][4] > 0


def test_foreign_files_are_no_freeze_records(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path))
    phases = [record["phase"] for record in run.freeze_records]
    for name in ("._01-head.json", ".DS_Store", "notes.json"):
        (tmp_path / "certificates" / name).write_bytes(b"\0\5")
    for path in [*(tmp_path / "certificates").glob("01-*.json")]:
        shutil.copy(path, path.with_stem(f"{path.stem} (copy)"))
    (tmp_path / "certificates" / "100-last.json").write_text('{"phase": "last", "spans": []}')
    found = RunFiles.from_workdir(tmp_path).freeze_records
    assert [record["phase"] for record in found] == [*phases, "last"]


def test_the_schedule_planned_and_executed(make_run, tmp_path):
    run = RunFiles.from_workdir(make_run(tmp_path))
    charts = charts_of(run, "Schedule")
    assert list(charts) == ["Planned", "Executed"]
    cells = charts["Planned"].spec["data"]["values"]
    assert {cell["block"] for cell in cells} == {"head", "top", "blocks.11"}
    assert len(cells) == 10 + 4 + 4
    assert charts["Executed"].table.rows[-1][0] == "stem"
    assert set(charts["Executed"].table.rows[-1][1:]) == {"frozen"}
    assert "equals the plan" in parts_of(run, "Schedule")[1].paragraphs[0]


def test_another_schedule_than_planned_is_reported(make_run, tmp_path):
    workdir = make_run(tmp_path)
    log = workdir / "metrics.jsonl"
    log.write_text(log.read_text().replace('"top": 0.0005', '"top": 0.0'))
    assert "differs from the plan" in parts_of(RunFiles.from_workdir(workdir), "Schedule")[1].paragraphs[0]


def test_curves_have_all_epochs_and_every_score(make_run, tmp_path):
    charts = charts_of(RunFiles.from_workdir(make_run(tmp_path)), "Curves")
    assert list(charts) == ["Loss", "Accuracy", "Learning rate"]
    values = charts["Loss"].spec["data"]["values"]
    assert [row["x"] for row in values if row["series"] == "training"] == [*range(1, 11)]
    assert [row["x"] for row in values if row["series"] == "validation"] == [6, 10]


def test_infinite_statistics_are_left_out(make_run, tmp_path):
    charts = charts_of(RunFiles.from_workdir(make_run(tmp_path, diagnosed=True)), "Block statistics")
    values = charts["Gradient signal to noise"].spec["data"]["values"]
    assert {row["block"] for row in values} == {"blocks.11", "top"}
    assert len(charts["Relative gradient norm"].spec["data"]["values"]) == 10 + 4 + 4
    distances = charts["Distance from the pretrained weights at the end"].table.rows
    assert [row[0] for row in distances] == ["head", "top", "blocks.11", "blocks.1", "stem"]


def test_omitted_diagnostics_are_reported(make_run, tmp_path):
    *_, text = parts_of(RunFiles.from_workdir(make_run(tmp_path, diagnosed=True)), "Block statistics")
    assert text.paragraphs == ["The diagnostics do not include interpolation: the head is new."]
    text, _ = parts_of(RunFiles.from_workdir(tmp_path), "Saliency maps")
    assert text.paragraphs[0].endswith("contribute most to the predicted class (Grad-CAM at top).")


def test_misclassified_images_are_shown(make_run, tmp_path):
    _, images = parts_of(RunFiles.from_workdir(make_run(tmp_path)), "Misclassified images")
    assert isinstance(images, Images)
    assert len(images.images) == 4
    assert images.images[0].source.startswith("data:image/jpeg;base64,")
    assert images.images[0].lines[1] == "with probability 91.0%"


def test_errors_of_numbers_are_short(make_run, tmp_path):
    workdir = make_run(tmp_path)
    line = {"kind": "evaluation", "phase": "top", "epoch": 4, "task": "regression", "images": 1, "mae": 11.1}
    none = dict.fromkeys(("mae_interval", "rmse", "rmse_interval", "r2", "r2_interval"))
    line["per_quantity"] = {"sum": {"mae": 11.1, **none}}
    with (workdir / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")
    path = workdir / "mistakes" / "mistakes.json"
    mistakes = json.loads(path.read_text())["mistakes"][:1]
    mistakes[0] |= {"label": "2", "predicted": "13.0778; -1.25e-05", "note": "off by +11.08"}
    path.write_text(json.dumps({"mistakes": mistakes}))
    text, images = parts_of(RunFiles.from_workdir(workdir), "Largest errors")
    assert text.paragraphs[0].endswith("largest error first.")
    assert images.images[0].lines == ("2, predicted as 13.08; -1.25e-05", "off by +11.08")


def test_how_to_reproduce_it(make_run, tmp_path):
    workdir = make_run(tmp_path / "toy")
    codes = [part for part in parts_of(RunFiles.from_workdir(workdir), "Reproduce") if isinstance(part, Code)]
    assert codes[0].text == "transfer-jax train 'my toys.py' --seed 0"
    assert codes[1].text == f"transfer-jax train {workdir}/config.json --workdir {workdir}-again"


def test_images_given_from_python_need_python_to_reproduce(make_run, tmp_path):
    workdir = make_run(tmp_path)
    path = workdir / "environment.json"
    path.write_text(path.read_text().replace('"images_given": false', '"images_given": true'))
    _, call, *_ = parts_of(RunFiles.from_workdir(workdir), "Reproduce")
    assert "dataset=images" in call.text
    compile(call.text, "repeat.py", "exec")


def test_a_changed_block_is_reported_in_capitals(make_run, tmp_path):
    workdir = make_run(tmp_path)
    path = workdir / "certificates" / "01-head.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32, 1))
    text, table = parts_of(RunFiles.from_workdir(workdir), "Freeze checks")
    assert text.paragraphs[0].startswith("NOT all")
    assert isinstance(table, Table)
    assert [row[-1] for row in table.rows] == [False, True]
