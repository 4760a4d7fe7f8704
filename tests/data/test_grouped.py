import numpy as np
import pytest

from transfer_jax.data import grouped
from transfer_jax.data.grouped import Grouped, group_sizes, positions


@pytest.mark.parametrize("groups", [1, 7, 70_000], ids=["one", "few", "more than 16 bits"])
def test_members_are_the_positions_of_a_group(monkeypatch, groups):
    monkeypatch.setattr(grouped, "_CHUNK", 100)
    items = np.random.default_rng(0).integers(0, groups, 1234).astype(np.int32)
    items[5] = groups - 1
    found = Grouped(items)
    np.testing.assert_array_equal(found.sizes, np.bincount(items, minlength=groups))
    for group in {0, groups - 1, *items[:20].tolist()}:
        np.testing.assert_array_equal(found.members(group), np.flatnonzero(items == group))


def test_sizes_of_no_items():
    assert group_sizes(np.zeros(0, np.int32), 3).tolist() == [0, 0, 0]
    assert Grouped(np.zeros(0, np.int32)).sizes.tolist() == []


def test_positions_of_true(monkeypatch):
    monkeypatch.setattr(grouped, "_CHUNK", 10)
    mask = np.random.default_rng(0).random(95) < 0.3
    np.testing.assert_array_equal(positions(mask), np.flatnonzero(mask))
    assert positions(mask).dtype == np.int32
