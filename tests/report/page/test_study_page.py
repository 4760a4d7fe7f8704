import json
from collections.abc import Sequence

import pyarrow
import pyarrow.parquet
import pytest

from transfer_jax.report.page.elements import Link, Page, Table, Text, Tiles
from transfer_jax.report.page.study_charts import pareto_chart
from transfer_jax.report.page.study_files import StudyFiles
from transfer_jax.report.page.study_page import is_study, study_page, write_study_report

ALL = ["Summary", "Results by depth", "Accuracy and cost", "Comparisons", "Trials", "Reproduce"]


def lead(page: Page) -> Sequence[str]:
    text = page.sections[0].parts[0]
    assert isinstance(text, Text)
    return text.paragraphs


def tables(page: Page) -> dict[str, Table]:
    parts = (part for section in page.sections for part in section.parts)
    return {part.caption: part for part in parts if isinstance(part, Table)}


@pytest.mark.parametrize(
    ("done", "sections"),
    [(None, ALL), (4, [title for title in ALL if title != "Comparisons"]), (0, [ALL[0], ALL[-1]])],
)
def test_it_can_be_written_at_any_time(make_study, tmp_path, done, sections):
    page = study_page(StudyFiles(make_study(tmp_path, done=done)))
    assert [section.title for section in page.sections] == sections
    assert lead(page)[1].startswith("The best depth is 2." if done is None else "There is no analysis yet")


def test_comparisons_have_verdicts(make_study, tmp_path):
    found = tables(study_page(StudyFiles(make_study(tmp_path))))
    table = found["Differences: first minus second; test: Wilcoxon; metric: accuracy"]
    names = [column.name for column in table.columns]
    assert names[:6] == ["first", "second", "difference", "low", "high", "verdict"]
    assert [row[0] for row in table.rows] == ["blocks.1", "stem"]
    assert [row[5] for row in table.rows] == ["no difference shown", "better"]
    assert {column.name: column.format for column in table.columns}["difference"] == "points"


def test_trials_lead_to_their_reports(make_study, tmp_path):
    folder = make_study(tmp_path)
    report = folder / "trials" / "01-top-seed0" / "report.html"
    report.write_text("")
    rows = tables(study_page(StudyFiles(folder)))["Finished trials"].rows
    cells = {cell.text if isinstance(cell, Link) else cell: cell for cell, *_ in rows}
    assert len(cells) == 15
    assert cells["01-top-seed0"] == Link("01-top-seed0", "trials/01-top-seed0/report.html")
    assert cells["01-top-seed1"] == "01-top-seed1"


def test_other_folders_are_refused(make_run, tmp_path):
    assert not is_study(make_run(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"not the folder of a study: it has no study.json"):
        write_study_report(tmp_path)


def test_failed_and_later_trials_are_reported(make_study, tmp_path):
    folder = make_study(tmp_path)
    answer = json.loads((folder / "answer.json").read_text())
    failed = [{"trial": "04-stem-seed9", "error": "out of memory"}]
    (folder / "answer.json").write_text(json.dumps({**answer, "finished": 12, "failed": failed}))
    page = study_page(StudyFiles(folder))
    assert lead(page)[-1] == "This summary covers 12 trials; 15 are finished now."
    assert [[*row] for row in tables(page)["Failed trials"].rows] == [["04-stem-seed9", "out of memory"]]


def test_a_study_of_numbers_shows_their_errors(make_study, tmp_path):
    folder = make_study(tmp_path)
    rows = pyarrow.parquet.read_table(folder / "table.parquet").to_pylist()
    changed = [
        {
            **{name: value for name, value in row.items() if "accuracy" not in name and name != "ece"},
            "task": "regression",
            "mae": 10 * (1 - row["accuracy"]),
            "overfit_gap": 0.5,
        }
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(changed), folder / "table.parquet")
    answer = json.loads((folder / "answer.json").read_text())
    answer["comparisons"] = [{**each, "metric": "mae"} for each in answer["comparisons"]]
    (folder / "answer.json").write_text(json.dumps(answer))
    files = StudyFiles(folder)
    page = study_page(files)
    assert "MAE and cost" in [section.title for section in page.sections]
    tiles = next(part.tiles for part in page.sections[0].parts if isinstance(part, Tiles))
    best = min(row["mean"] for row in files.means("mae"))
    assert f"{best:.4g}" in [tile.value for tile in tiles if tile.name == "best mean MAE"]
    found = tables(page)["Differences: first minus second; test: Wilcoxon; metric: MAE"]
    assert {column.name: column.format for column in found.columns}["difference"] == "number"
    (trials,) = [table for caption, table in tables(page).items() if caption == "Finished trials"]
    formats = {column.name: column.format for column in trials.columns}
    assert (formats["MAE"], formats["overfit gap"], "task" in formats) == ("number", "number", False)
    chart = pareto_chart(files, "operations")
    assert chart is not None
    on_front = [row["mean"] for row in chart.spec["data"]["values"] if row["front"]]
    assert on_front == sorted(on_front, reverse=True)
