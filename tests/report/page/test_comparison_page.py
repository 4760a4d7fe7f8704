from pathlib import Path

import pytest

from transfer_jax.report.page.comparison_page import (
    comparison_page,
    distinct_names,
    flatten,
    write_comparison,
)
from transfer_jax.report.page.elements import Link, Table, Text
from transfer_jax.report.page.run_files import RunFiles


def section(page, title: str) -> list:
    return next(list(each.parts) for each in page.sections if each.title == title)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("/a/one", "/a/two"), ["one", "two"]),
        (("/a/run", "/b/run"), ["a/run", "b/run"]),
        (("/a/x/run", "/b/x/run", "/c"), ["a/x/run", "b/x/run", "/c"]),
    ],
)
def test_names_tell_runs_apart(paths, names):
    assert distinct_names([Path(path) for path in paths]) == names


def test_only_what_differs_is_listed(make_run, tmp_path):
    runs = [RunFiles.from_workdir(make_run(tmp_path / f"{size}", batch_size=size)) for size in (16, 32)]
    page = comparison_page(runs, tmp_path)
    (table,) = section(page, "Config differences")
    assert [column.name for column in table.columns] == ["run", "batch_size"]
    assert [[*row] for row in table.rows] == [["16", "16"], ["32", "32"]]
    assert "same validation images" in section(page, "Scores")[0].paragraphs[1]


def test_runs_of_other_splits_are_not_compared_silently(make_run, tmp_path):
    runs = [RunFiles.from_workdir(make_run(tmp_path / f"{seed}", seed=seed)) for seed in (0, 1)]
    text = section(comparison_page(runs, tmp_path), "Scores")[0].paragraphs[1]
    assert text == "The runs have different validation images, because seed differs."


def test_runs_with_equal_configs(make_run, tmp_path):
    runs = [RunFiles.from_workdir(make_run(tmp_path / name)) for name in ("one", "two")]
    assert section(comparison_page(runs, tmp_path), "Config differences") == [
        Text(["All runs have the same config."])
    ]


def test_schedules_are_words(make_run, tmp_path):
    runs = [RunFiles.from_workdir(make_run(tmp_path / name)) for name in ("one", "two")]
    table = section(comparison_page(runs, tmp_path), "Schedules")[0]
    words = "head: head for 6 epochs, then top: top(2) for 4 epochs"
    assert [[*row] for row in table.rows] == [[words, 2, "one, two"]]


def test_scores_lead_to_reports(make_run, tmp_path):
    runs = [RunFiles.from_workdir(make_run(tmp_path / "runs" / name)) for name in ("one", "two")]
    (tmp_path / "runs" / "two" / "report.html").write_text("")
    table = section(comparison_page(runs, tmp_path / "pages"), "Scores")[1]
    assert isinstance(table, Table)
    assert [row[0] for row in table.rows] == ["one", Link("two", "../runs/two/report.html")]
    assert [row[4] for row in table.rows] == [run.scores["accuracy"] for run in runs]


def test_new_runs(make_run, tmp_path):
    runs = [RunFiles.from_workdir(make_run(tmp_path / name, epochs=0)) for name in ("one", "two")]
    page = comparison_page(runs, tmp_path)
    assert [each.title for each in page.sections] == ["Scores", "Schedules", "Config differences"]


def test_a_run_given_twice_is_refused(make_run, tmp_path):
    run = make_run(tmp_path / "one")
    with pytest.raises(ValueError, match="a run is given twice"):
        write_comparison([run, tmp_path / "two" / ".." / "one"], tmp_path / "report.html")


def test_nested_values_have_dotted_names():
    values = {"a": 1, "b": {"c": [2, {"d": 3}], "e": []}}
    assert list(flatten(values)) == [("a", 1), ("b.c.0", 2), ("b.c.1.d", 3), ("b.e", [])]
