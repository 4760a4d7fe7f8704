import itertools
import pickle

import numpy as np
import pytest

from transfer_jax.features.shard_order import ShardOrder

SIZES = [(1000, 16, 30), (1003, 24, 37), (130, 7, 10), (64, 64, 64), (5000, 128, 70)]


@pytest.mark.parametrize(("size", "batch", "shard"), SIZES)
def test_each_epoch_has_each_position_at_most_once(size, batch, shard):
    order = ShardOrder(size, batch, 3, shard=shard)
    steps = size // batch
    epochs = [np.concatenate([order[epoch * steps + k] for k in range(steps)]) for epoch in range(2)]
    for positions in epochs:
        assert len(positions) == steps * batch
        assert len({*positions.tolist()}) == len(positions)
        assert 0 <= positions.min() <= positions.max() < size
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize(
    ("size", "batch", "shard", "processes"),
    [(1000, 16, 30, 2), (1000, 16, 30, 4), (1003, 24, 37, 8), (64, 64, 1, 2), (700, 32, 20, 8)],
)
def test_the_order_is_that_of_one_process_and_each_process_has_its_own_shards(size, batch, shard, processes):
    alone, steps = ShardOrder(size, batch, 0, shard=shard), size // batch
    seen = []
    for places in np.split(np.arange(batch), processes):
        asked: list[tuple[int, int]] = []
        own = ShardOrder(size, batch, 0, shard=shard, places=places, prefetch=asked.extend)
        rows = []
        for step in range(2 * steps):
            np.testing.assert_array_equal(own[step], alone[step])
            rows.append(own[step][places])
        seen.append(np.unique(np.concatenate(rows)))
        covered = np.concatenate([np.arange(first, last) for first, last in asked])
        assert {*seen[-1].tolist()} <= {*covered.tolist()}
    assert all(left.max() < right.min() for left, right in itertools.pairwise(seen))


def test_few_shards_are_in_use_at_a_time():
    order = ShardOrder(100_000, 32, 0, shard=100)
    assert order.groups == 32
    shards = [{*(order[step] // 100).tolist()} for step in range(40)]
    assert all(len(each) <= 96 for each in shards)  # Two or three of each group.
    assert len(set.union(*shards)) < 160


def test_any_batch_is_computed_alone_and_in_another_process():
    order = ShardOrder(1000, 16, 5, shard=30)
    expected = [order[step].copy() for step in range(100)]
    again = pickle.loads(pickle.dumps(order))
    for step in (99, 3, 62, 61, 0):
        np.testing.assert_array_equal(again[step], expected[step])
        np.testing.assert_array_equal(ShardOrder(1000, 16, 5, shard=30)[step], expected[step])
    assert any((ShardOrder(1000, 16, 6, shard=30)[step] != expected[step]).any() for step in range(3))
