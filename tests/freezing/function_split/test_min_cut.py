import pytest

from transfer_jax.freezing.function_split.min_cut import INFINITE, min_cut


def test_cut_nearest_to_the_sink():
    edges = [("s", "a", 3), ("a", "b", 2), ("b", "c", 5), ("c", "d", 2), ("d", "t", 9)]
    assert min_cut(edges, "s", "t") == (2, {"d", "t"})


def test_parallel_edges_and_branches():
    edges = [("s", "a", INFINITE), ("a", "t", 4), ("a", "t", 3), ("a", "b", 1), ("b", "t", INFINITE)]
    assert min_cut(edges, "s", "t") == (8, {"t", "b"})


def test_no_finite_cut():
    assert min_cut([("s", "a", INFINITE), ("a", "t", INFINITE), ("s", "t", 5)], "s", "t") is None


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e9])
def test_large_capacities(scale):
    edges = [
        ("s", "a", 999 * scale),
        ("a", "b", 100 * scale + 1),
        ("b", "c", 100 * scale),
        ("c", "t", 5000 * scale),
    ]
    price, behind = min_cut(edges, "s", "t") or (0, set())
    assert price == pytest.approx(100 * scale, rel=1e-6)
    assert behind == {"c", "t"}
