import pytest

from transfer_jax.report.page.formats import format_cell, join_names, operations, rate, seconds, size


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.31, "0.3 s"),
        (42.4, "42 s"),
        (59.6, "60 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_times(value, text):
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12 B"), (12_345, "12.3 kB"), (4.5e6, "4.5 MB"), (2e9, "2 GB")]
)
def test_sizes(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12 FLOP"), (327_808, "328 kFLOP"), (3.41e9, "3.41 GFLOP"), (2e15, "2 PFLOP")]
)
def test_operations(value, text):
    assert operations(value) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (1e-3, "0.001"), (1.26e-5, "1.3e-05")])
def test_rates(value, text):
    assert rate(value) == text


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, "percent", ""),
        (float("nan"), "number", ""),
        (True, "text", "yes"),
        (0.741, "percent", "74.1%"),
        (-0.018, "points", "-1.8 points"),
        (3_413_024, "count", "3,413,024"),
        (0.69314, "number", "0.6931"),
        (12345.6, "number", "12,346"),
        ("head", "percent", "head"),
        (7, "text", "7"),
    ],
)
def test_cells(value, form, text):
    assert format_cell(value, form) == text


@pytest.mark.parametrize(
    ("names", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_lists(names, text):
    assert join_names(names) == text
