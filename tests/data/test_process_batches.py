import functools

import numpy as np
import pytest

from transfer_jax.data import BadImageError, ordered_batches, shuffled_batches


def rows(indices, places, rng):
    if 90 in indices:
        raise BadImageError("cats/90.png: the file is empty")
    return {"row": indices, "noise": rng.random(100)[places]}


def squares(indices):
    return {"row": indices**2}


def take(iterator, n: int) -> list[dict]:
    return [next(iterator) for _ in range(n)]


def assert_same(one: list[dict], other: list[dict]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.extended
def test_processes_fetch_the_batches_of_threads():
    batches = functools.partial(shuffled_batches, rows, 23, batch_size=4, seed=1)
    expected = take(iter(batches()), 14)
    found = iter(batches(workers=2, threads=1))
    assert_same(take(found, 5), expected[:5])
    state = found.get_state()
    resumed = iter(batches(workers=1))
    resumed.set_state(state)
    assert resumed.get_state() == state
    assert_same(take(resumed, 9), expected[5:])
    in_threads = iter(batches())
    in_threads.set_state(state)
    assert_same(take(in_threads, 9), expected[5:])
    found.close()
    resumed.close()

    assert_same(
        [*ordered_batches(squares, 10, batch_size=4, workers=2)],
        [*ordered_batches(squares, 10, batch_size=4)],
    )


@pytest.mark.extended
def test_errors_of_processes_are_raised_unchanged():
    iterator = iter(shuffled_batches(rows, 100, batch_size=10, seed=0, workers=1))
    with pytest.raises(BadImageError) as caught:
        take(iterator, 10)
    assert str(caught.value) == "cats/90.png: the file is empty"
    iterator.close()


def test_functions_that_cannot_be_pickled_raise():
    with pytest.raises(ValueError, match="2 processes cannot read the images"):
        ordered_batches(lambda indices: {}, 10, batch_size=4, workers=2)
