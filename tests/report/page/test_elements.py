import json

from transfer_jax.report.page.elements import Column, Section, replace_nonfinite


def test_nan_and_infinity_become_none():
    found = replace_nonfinite(
        {"a": float("inf"), "b": (1.5, float("nan"), {"c": -float("inf")}), "d": "nan", "e": 2}
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "a": None,
        "b": [1.5, None, {"c": None}],
        "d": "nan",
        "e": 2,
    }


def test_a_heading_becomes_an_anchor():
    assert Section("Frozen parameters", []).anchor == "frozen-parameters"


def test_numeric_columns():
    assert [Column("x", form).numeric for form in ("text", "code", "percent", "seconds")] == [
        False,
        False,
        True,
        True,
    ]
