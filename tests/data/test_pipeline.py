import json
import threading

import numpy as np
import pytest

from transfer_jax.data import BadImageError, listed_batches, ordered_batches, shuffled_batches


def fetch(indices, places, rng):
    return {"row": indices, "noise": rng.random(100)[places]}


def take(iterator, n: int) -> list[dict]:
    return [next(iterator) for _ in range(n)]


def assert_same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize(("size", "batch_size"), [(20, 5), (23, 5), (7, 7), (5, 1), (600, 64)])
def test_epoch_is_a_permutation(size, batch_size):
    steps = size // batch_size
    iterator = iter(shuffled_batches(fetch, size, batch_size=batch_size, seed=3))
    epochs = []
    for _ in range(3):
        batches = take(iterator, steps)
        assert all(batch["index"].shape == (batch_size,) for batch in batches)
        assert all(batch["index"].dtype == np.int64 for batch in batches)
        epochs.append(np.concatenate([batch["index"] for batch in batches]).tolist())
    for epoch in epochs:
        assert len(set(epoch)) == steps * batch_size
        assert set(epoch) <= set(range(size))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_each_epoch_omits_other_examples():
    iterator = iter(shuffled_batches(fetch, 11, batch_size=10, seed=0))
    left_out = {11 * 10 // 2 - batch["index"].sum() for batch in take(iterator, 100)}
    assert left_out == set(range(11))


def test_order_depends_on_the_seed():
    one, again, other = (
        take(iter(shuffled_batches(fetch, 50, batch_size=10, seed=seed)), 7) for seed in (4, 4, 5)
    )
    assert_same(one, again)
    assert [b["index"].tolist() for b in one] != [b["index"].tolist() for b in other]
    assert not any((a["noise"] == b["noise"]).any() for a, b in zip(one, other, strict=True))


def test_each_batch_has_its_own_generator():
    noise = np.concatenate(
        [b["noise"] for b in take(iter(shuffled_batches(fetch, 6, batch_size=3, seed=0)), 40)]
    )
    assert len(set(noise.tolist())) == 120


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (1, 6), (4, 4), (4, 1), (7, 20)])
def test_batches_do_not_depend_on_threads(threads, prefetch):
    expected = take(iter(shuffled_batches(fetch, 23, batch_size=4, seed=1)), 30)
    batches = shuffled_batches(fetch, 23, batch_size=4, seed=1, threads=threads, prefetch=prefetch)
    assert_same(take(iter(batches), 30), expected)


def test_batches_are_fetched_in_threads():
    names = set()

    def thread_name(indices, places, rng):
        names.add(threading.current_thread().name)
        return {"index": indices}

    take(iter(shuffled_batches(thread_name, 8, batch_size=2, seed=0, threads=0)), 4)
    assert names == {threading.current_thread().name}
    names.clear()
    take(iter(shuffled_batches(thread_name, 8, batch_size=2, seed=0, threads=2)), 4)
    assert threading.current_thread().name not in names


@pytest.mark.parametrize("before", [0, 1, 4, 5, 6, 13])  # an epoch is 5 batches
@pytest.mark.parametrize("threads", [0, 3])
def test_resume_is_exact(before, threads):
    expected = take(iter(shuffled_batches(fetch, 23, batch_size=4, seed=1)), before + 12)
    stopped = iter(shuffled_batches(fetch, 23, batch_size=4, seed=1, threads=threads))
    take(stopped, before)
    state = json.loads(json.dumps(stopped.get_state()))

    resumed = iter(shuffled_batches(fetch, 23, batch_size=4, seed=1, threads=2))
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_same(take(resumed, 12), expected[before:])
    resumed.set_state(state)  # Back again, in a used iterator.
    assert_same(take(resumed, 12), expected[before:])


@pytest.mark.parametrize("threads", [0, 2])
def test_errors_are_raised_unchanged(threads):
    def failing(indices, places=None, rng=None):
        if 3 in indices:
            raise BadImageError("cats/3.png: the file is empty")
        return {"index": indices}

    shuffled = iter(shuffled_batches(failing, 8, batch_size=2, seed=0, threads=threads))
    with pytest.raises(BadImageError) as caught:
        take(shuffled, 4)
    assert str(caught.value) == "cats/3.png: the file is empty"
    ordered = iter(ordered_batches(failing, 8, batch_size=2, threads=threads))
    assert next(ordered)["index"].tolist() == [0, 1]
    with pytest.raises(BadImageError) as caught:
        next(ordered)
    assert str(caught.value) == "cats/3.png: the file is empty"


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_ordered_batches_are_padded_and_masked(threads):
    def squares(indices):
        return {"index": indices, "square": indices**2}

    batches = ordered_batches(squares, 10, batch_size=4, threads=threads)
    for _ in range(2):  # It can be gone through again.
        first, second, third = batches
        assert first["index"].tolist() == [0, 1, 2, 3]
        assert second["square"].tolist() == [16, 25, 36, 49]
        assert third["index"].tolist() == [8, 9, 9, 9]
        assert third["mask"].tolist() == [True, True, False, False]
        assert third["mask"].dtype == bool
        assert first["mask"].all()
        assert second["mask"].all()


@pytest.mark.parametrize(("size", "batch_size"), [(1, 1), (1, 8), (8, 8), (9, 8), (64, 3)])
def test_ordered_batches_return_each_example_once(size, batch_size):
    batches = list(ordered_batches(lambda indices: {"index": indices}, size, batch_size=batch_size))
    assert all(len(batch["index"]) == batch_size for batch in batches)
    assert np.concatenate([b["index"][b["mask"]] for b in batches]).tolist() == list(range(size))


@pytest.mark.parametrize("shards", [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[3], [0, 1, 2]]])
def test_rows_of_all_processes_make_the_batch(shards):
    whole = take(iter(shuffled_batches(fetch, 23, batch_size=4, seed=1)), 12)
    parts = [
        take(iter(shuffled_batches(fetch, 23, batch_size=4, seed=1, rows=np.array(rows))), 12)
        for rows in shards
    ]
    for expected, *found in zip(whole, *parts, strict=True):
        for rows, part in zip(shards, found, strict=True):
            np.testing.assert_array_equal(part["index"], expected["index"])
            np.testing.assert_array_equal(part["row"], expected["index"][rows])
            np.testing.assert_array_equal(part["noise"], expected["noise"][rows])


@pytest.mark.parametrize("rows", [[0, 1], [1, 3]])
def test_ordered_rows_have_the_mask_of_the_batch(rows):
    whole = list(ordered_batches(lambda indices: {"row": indices}, 10, batch_size=4))
    found = list(ordered_batches(lambda indices: {"row": indices}, 10, batch_size=4, rows=np.array(rows)))
    for expected, part in zip(whole, found, strict=True):
        np.testing.assert_array_equal(part["row"], expected["row"][rows])
        np.testing.assert_array_equal(part["mask"], expected["mask"])


@pytest.mark.parametrize("threads", [0, 3])
def test_listed_batches_follow_the_lists(threads):
    lists = [np.array([3, 4]), np.array([9]), np.array([0, 1, 2])]
    found = listed_batches(lambda indices: {"row": indices}, lists, threads=threads)
    assert [batch["row"].tolist() for batch in found] == [[3, 4], [9], [0, 1, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11}, r"batch_size must be in 1\.\.10, the number of examples, got 11"),
        ({"batch_size": 0}, "got 0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"threads": -1}, "threads, prefetch and workers must not be negative, got -1, 2 and 0"),
        ({"prefetch": -3}, "got 2, -3 and 0"),
    ],
)
def test_shuffled_batches_with_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        shuffled_batches(fetch, 10, **{"batch_size": 2, "seed": 0, **options})


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (0, {}, "at least 1, got 0 and 4"),
        (10, {"batch_size": 0}, "at least 1, got 10 and 0"),
        (10, {"threads": -1}, "must not be negative, got -1, 2 and 0"),
    ],
)
def test_ordered_batches_with_invalid_arguments_raise(size, options, message):
    with pytest.raises(ValueError, match=message):
        ordered_batches(lambda indices: {}, size, **{"batch_size": 4, **options})
