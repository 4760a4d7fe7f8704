import html
import json
import re

import numpy as np
import pytest
import vl_convert

from transfer_jax.report.page.charts import color_limits, confusion, curves, heat_map
from transfer_jax.report.page.elements import Column
from transfer_jax.tasks.confusions import Confusions


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
    made = confusion(names, Confusions.of_matrix(matrix))
    assert len(made.spec["layer"]) == layers
    assert [row[0] for row in made.table.rows] == names
    assert made.table.rows[0][1:3] == [3, 2]


def test_names_stay_whole_in_the_data_and_distinct_at_the_axes():
    names = ["a.b[c]\\d", "$1_$5", "<b>&'\"", "two\nlines", " ", "x" * 300, "x" * 299, "__proto__", "שלום"]
    matrix = [[int(row == column) for column in range(len(names))] for row in range(len(names))]
    made = confusion(names, Confusions.of_matrix(matrix))
    spec = json.loads(json.dumps(made.spec))
    assert [row["true"] for row in spec["data"]["values"][:: len(names)]] == names
    assert [row["predicted"] for row in spec["data"]["values"][: len(names)]] == names
    svg = vl_convert.vegalite_to_svg(json.dumps({**spec, "width": 900, "height": 600}))
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    shown = ["a.b[c]\\d", "$1_$5", "<b>&'\"", r"two\nlines", "“ ”", "xxxxxxxxxxxxxxxxxx…xxxxxxxx #6"]
    shown += ["xxxxxxxxxxxxxxxxxx…xxxxxxxx #7", "__proto__", "שלום"]
    assert [text for text in texts if not text.isdigit()] == [*shown, "predicted", *shown, "true"]


def test_usual_names_need_no_expression():
    assert "labelExpr" not in json.dumps(confusion(["a", "b"], Confusions.of_matrix([[1, 0], [0, 1]])).spec)


def test_confusion_of_many_classes_shows_those_with_errors():
    matrix = np.diag(np.full(300, 9))
    matrix[7, 250] = matrix[250, 7] = 5
    shown = confusion([f"class {index}" for index in range(300)], Confusions.of_matrix(matrix))
    assert shown.title == "Confusion matrix of 40 of 300 classes"
    rows = shown.spec["data"]["values"]
    assert len(rows) == 40 * 40
    share = {(row["true"], row["predicted"]): row["share"] for row in rows}
    assert share["class 7", "class 250"] == 5 / 14
