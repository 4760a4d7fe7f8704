import dataclasses
import pickle

import numpy as np
import pytest

from transfer_jax.data import ImageDataset, from_arrays, split_in_parts
from transfer_jax.data.joined import with_validation


def images(classes: str, count: int, value: int = 0, **attributes) -> ImageDataset:
    """Returns images of one pixel, whose value is their position from `value` on."""
    pixels = (value + np.arange(count, dtype=np.uint8))[:, None, None, None].repeat(3, -1)
    found = from_arrays(pixels, np.arange(count) % len(classes), tuple(classes))
    return found if not attributes else replaced(found, attributes)


def replaced(dataset: ImageDataset, attributes) -> ImageDataset:
    return dataclasses.replace(dataset, **attributes)


def test_validation_images_are_those_of_the_other_source_by_name():
    joined = with_validation(images("abc", 9), images("cb", 4, 100), "others")
    train, validation, test = split_in_parts(joined, 0.5)
    assert (len(train), len(validation), test) == (9, 4, None)
    assert [joined.class_names[label] for label in validation.labels] == [*"cbcb"]
    assert [int(validation.image(i).max()) for i in range(4)] == [100, 101, 102, 103]
    assert [int(train.image(i).max()) for i in range(9)] == [*range(9)]
    again = pickle.loads(pickle.dumps(joined))
    assert int(again.image(9).max()) == 100
    assert [*joined.names] == [*images("abc", 9).names, *images("cb", 4).names]
    assert joined.names[-1] == images("cb", 4).names[3]
    others = with_validation(images("abc", 9), images("cb", 5, 100), "others")
    assert others.fingerprint != joined.fingerprint


def test_several_images_are_read_at_once_from_each_source():
    calls = []

    def read_many(positions):
        calls.append([*positions])
        return [np.full((1, 1, 3), 50 + each, np.uint8) for each in positions]

    joined = with_validation(images("ab", 6), images("ab", 6, read_many=read_many), "others")
    assert joined.read_many is not None
    found = joined.read_many([7, 1, 11, 0])
    assert [int(np.asarray(each).max()) for each in found] == [51, 1, 55, 0]
    assert calls == [[1, 5]]


def test_only_the_validation_images_of_a_source_with_a_split_are_used():
    mask = np.arange(8) >= 5
    others = images("ab", 8, 100, held_out=mask, test=np.arange(8) == 7, weights=np.full(8, 2, np.float32))
    joined = with_validation(images("ab", 6, test=np.arange(6) < 2), others, "others")
    train, validation, test = split_in_parts(joined, 0.5)
    assert test is not None
    assert (len(train), len(validation), len(test)) == (4, 2, 2)
    assert [int(validation.image(i).max()) for i in range(2)] == [105, 106]
    assert joined.weights is not None
    assert joined.weights.tolist() == [1] * 6 + [2] * 2


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (images("ab", 6), images("ax", 6), r"eval_images='others': the images have classes .*'x'"),
        (
            images("ab", 6, held_out=np.arange(6) > 3),
            images("ab", 6),
            "have validation images of their own; leave eval_images='others' out",
        ),
        (
            images("ab", 6),
            from_arrays(np.zeros((6, 1, 1, 3), np.uint8), np.eye(6, 2), ("a", "b"), task="multi_label"),
            "targets of the task multi_label, and the training images have those of single_label",
        ),
    ],
    ids=["classes", "split", "task"],
)
def test_other_images_are_refused(train, validation, message):
    with pytest.raises(ValueError, match=message):
        with_validation(train, validation, "others")
