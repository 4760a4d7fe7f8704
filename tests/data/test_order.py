import pickle

import numpy as np
import pytest

from transfer_jax.data import order as orders
from transfer_jax.data.order import BlockOrder, ComputedOrder, ListedOrder, make_order


def epoch_of(order, size: int, batch_size: int, epoch: int) -> np.ndarray:
    steps = size // batch_size
    return np.concatenate([order[epoch * steps + batch] for batch in range(steps)])


@pytest.mark.parametrize("kind", [ListedOrder, ComputedOrder, BlockOrder])
@pytest.mark.parametrize(("size", "batch_size"), [(1, 1), (5, 2), (64, 64), (1000, 7), (5000, 32)])
def test_an_epoch_has_each_example_at_most_once(kind, size, batch_size, monkeypatch):
    monkeypatch.setattr(orders, "_LISTED", 999)  # The larger sets are computed.
    order = kind(size, batch_size, 3)
    epochs = [epoch_of(order, size, batch_size, epoch).tolist() for epoch in range(3)]
    for epoch in epochs:
        assert len({*epoch}) == len(epoch) == size // batch_size * batch_size
        assert {*epoch} <= {*range(size)}
    assert size < 64 or epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("kind", [ListedOrder, ComputedOrder, BlockOrder])
def test_a_copy_in_another_process_has_the_same_order(kind):
    order = kind(1000, 10, 3)
    first = order[50]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(order))[50], first)
    np.testing.assert_array_equal(kind(1000, 10, 3)[50], first)
    assert kind(1000, 10, 4)[50].tolist() != first.tolist()


@pytest.mark.parametrize("readers", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [2400, 2411, 10_003])
def test_readers_of_blocks_read_blocks_of_their_own(readers, size):
    order = BlockOrder(size, 24, 0, readers, block=16, window=4)
    batches = [order[batch] for batch in range(size // 24)]
    share = 24 // readers
    read = [np.concatenate([batch[part * share :][:share] for batch in batches]) for part in range(readers)]
    assert len(np.unique(read)) == size // 24 * 24
    blocks = [{*(rows // 16).tolist()} for rows in read]
    shared = sum(map(len, blocks)) - len(set.union(*blocks))
    assert shared < readers  # Only the blocks at the ends of the parts.


def test_batches_of_blocks_come_from_a_window():
    order = BlockOrder(100_000, 32, 0, block=100, window=8)
    blocks = [{*(order[batch] // 100).tolist()} for batch in range(200)]
    assert max(len(set.union(*blocks[first : first + 5])) for first in range(195)) <= 18
    assert min(map(len, blocks)) > 3  # Shuffled within the window.
    assert len(set.union(*blocks)) > 60  # 6,400 examples.


def test_all_examples_are_read_within_some_epochs_of_blocks():
    order = BlockOrder(103, 10, 1, readers=2)
    seen = {index for batch in range(300) for index in order[batch].tolist()}
    assert len(seen) == 103


def test_large_sets_have_a_computed_order(monkeypatch):
    assert isinstance(make_order(1000, 10, 0), ListedOrder)
    monkeypatch.setattr(orders, "_LISTED", 999)
    assert isinstance(make_order(1000, 10, 0), ComputedOrder)
    assert isinstance(make_order(1000, 10, 0, "blocks", 2), BlockOrder)


def test_batches_must_be_divisible_among_the_readers_of_blocks():
    with pytest.raises(ValueError, match="a batch of 10 examples cannot be divided among 4 processes"):
        BlockOrder(1000, 10, 0, readers=4)
