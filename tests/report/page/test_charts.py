import pytest

from transfer_jax.report.page.charts import color_limits, confusion, curves, heat_map
from transfer_jax.report.page.elements import Column


@pytest.mark.parametrize(
    ("values", "log", "limits"),
    [
        ([1e-2, 1e-3], True, (1e-3, 1e-2)),
        ([1.0, 1e-9], True, (1e-4, 1.0)),
        ([1e-3, 1e-3], True, (1e-4, 1e-3)),
        ([], True, (0.1, 1.0)),
        ([0.5, 0.9], False, (0.5, 0.9)),
        ([0.5], False, (0.0, 1.0)),
    ],
)
def test_colours_span_what_is_there(values, log, limits):
    assert color_limits(values, log=log) == pytest.approx(limits)


def test_a_heat_map_leaves_out_what_a_logarithm_cannot_show():
    rows = [{"block": "a", "first": i, "last": i + 1, "value": v} for i, v in enumerate((1.0, 0.0, None))]
    made = heat_map("T", "A.", rows, blocks=["a", "b"], x="epoch", value=Column("rate", "rate"))
    assert [row["value"] for row in made.spec["data"]["values"]] == [1.0]
    assert made.spec["layer"][0]["encoding"]["y"]["scale"]["domain"] == ["b", "a"]


def test_one_curve_needs_no_legend():
    rows = [{"series": "rate", "x": 1, "y": 0.5}]
    made = curves("T", "A.", rows, x=Column("epoch"), y=Column("rate"), names=["rate"])
    assert [column.name for column in made.table.columns] == ["epoch", "rate"]
    assert made.spec["layer"][0]["encoding"]["color"]["legend"] is None


@pytest.mark.parametrize(("classes", "layers"), [(3, 2), (25, 1)])
def test_a_confusion_matrix_has_numbers_while_they_can_be_read(classes, layers):
    names = [f"class {index}" for index in range(classes)]
    matrix = [[int(i == j) + 2 for j in range(classes)] for i in range(classes)]
    made = confusion(names, matrix)
    assert len(made.spec["layer"]) == layers
    assert [row[0] for row in made.table.rows] == names
    assert made.table.rows[0][1:3] == [3, 2]
