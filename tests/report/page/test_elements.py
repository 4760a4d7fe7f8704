import json

from transfer_jax.report.page.elements import Column, Link, Section, replace_nonfinite


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
    assert Section("Results by 50% #1", []).anchor == "results-by-50-1"


def test_a_link_escapes_the_names_of_folders():
    link = Link("a", "trials/50% #1?/javascript:x\udce9/report.html")
    assert link.address == "trials/50%25%20%231%3F/javascript%3Ax%E9/report.html"


def test_numeric_columns():
    assert [Column("x", form).numeric for form in ("text", "code", "percent", "seconds")] == [
        False,
        False,
        True,
        True,
    ]
