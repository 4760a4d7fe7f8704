import pytest

from transfer_jax.report.page.study_charts import front_names, level_chart, pareto_chart, pareto_front
from transfer_jax.report.page.study_files import StudyFiles


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 0.5), (2, 0.7), (3, 0.6), (4, 0.8)], [(1, 0.5), (2, 0.7), (4, 0.8)]),
        ([(1, 0.5), (1, 0.6), (2, 0.6)], [(1, 0.6)]),
        ([(3, 0.9), (1, 0.9)], [(1, 0.9)]),
    ],
)
def test_nothing_cheaper_is_as_good_as_the_front(points, front):
    found = pareto_front([{"cost": cost, "mean": mean} for cost, mean in points])
    assert [(row["cost"], row["mean"]) for row in found] == front


def test_names_do_not_overlap():
    places = [(1, 0.5, "head"), (90, 0.8, "blocks.9"), (95, 0.801, "blocks.8"), (100, 0.802, "blocks.7")]
    rows = [{"cost": c, "mean": m, "low": None, "high": None, "level": level} for c, m, level in places]
    assert [row["level"] for row in front_names(rows, rows, 10.0)] == ["head", "blocks.7"]
    apart = [{**row, "mean": row["mean"] + index / 5} for index, row in enumerate(rows)]
    assert len(front_names(apart, apart, 10.0)) == 4
    assert front_names(rows[:1], rows[:1], 1.0) == rows[:1]


def test_every_seed_is_a_point(make_study, tmp_path):
    files = StudyFiles(make_study(tmp_path))
    chart = level_chart(files, "accuracy", "Accuracy", "On toys.")
    assert chart is not None
    assert len(chart.spec["layer"][0]["data"]["values"]) == 15
    assert len(chart.table.rows) == 5
    assert level_chart(files, "nothing", "Nothing", "") is None


def test_the_front_is_marked(make_study, tmp_path):
    chart = pareto_chart(StudyFiles(make_study(tmp_path)), "operations")
    assert chart is not None
    means = [row["mean"] for row in chart.spec["data"]["values"]]
    on_front = [row["front"] for row in chart.spec["data"]["values"]]
    assert on_front == [mean == max(means[: index + 1]) for index, mean in enumerate(means)]
    assert not all(on_front)
