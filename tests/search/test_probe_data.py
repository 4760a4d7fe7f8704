import dataclasses

import numpy as np
import pytest

from transfer_jax.data import from_arrays
from transfer_jax.search.probe_data import features_by_depth, padded, probe_data

LABELS = np.array(["cat", "dog"] * 10)
DATASET = from_arrays(np.zeros((20, 4, 4), np.uint8), LABELS)


@pytest.mark.parametrize("labels", [LABELS, DATASET, LABELS == "dog"], ids=["names", "dataset", "booleans"])
def test_parts_by_fraction(labels):
    data = probe_data(labels, 0.3, 0)
    assert len(data.train) == 14
    assert np.bincount(data.labels[data.validation]).tolist() == [3, 3]
    assert not {*data.train} & {*data.validation}


@pytest.mark.parametrize("validation", [[3, 4], np.isin(np.arange(20), [3, 4])], ids=["rows", "mask"])
def test_parts_that_are_given(validation):
    data = probe_data(LABELS, validation, 0)
    assert data.validation.tolist() == [3, 4]
    assert len(data.train) == 18


def test_dataset_brings_its_split_weights_and_groups():
    own = dataclasses.replace(
        DATASET,
        held_out=np.arange(20) >= 16,
        weights=np.arange(1, 21, dtype=np.float32),
        together=np.arange(20) // 2,
    )
    data = probe_data(own, 0.25, 0)
    assert data.validation.tolist() == [16, 17, 18, 19]
    assert data.weights.tolist() == [*range(1, 21)]
    assert len({*data.groups[data.train]}) == 8
    assert not {*data.groups[data.train]} & {*data.groups[data.validation]}


def test_a_part_of_a_dataset_is_split_by_its_own_positions(toy_images):
    part = toy_images.part(np.arange(24, 48))
    data = probe_data(part, 0.25, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([data.train, data.validation])), np.arange(24))


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (1.5, "validation must be between 0 and 1, got 1.5"),
        ([20], r"validation must be in 0\.\.19, got 20\.\.20"),
        ([], "validation must be a fraction"),
        ([True, False], "validation must be a fraction such as 0.25, bool"),
        (
            np.ones(20, bool),
            "training examples of at least two classes; got 20 validation examples and 0 classes",
        ),
        (np.arange(20) % 2 == 0, "of at least two classes; got 10 validation examples and 1 class"),
    ],
)
def test_invalid_parts_are_errors(validation, message):
    with pytest.raises(ValueError, match=message):
        probe_data(LABELS, validation, 0)


def test_one_array_is_a_depth():
    assert [*features_by_depth(np.zeros((20, 3)), 20)] == ["features"]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"a": np.zeros((20, 2, 2, 3))}, r"'a' must have the shape \(20, channels\) .* pool='mean'"),
        ({"a": np.zeros((19, 3))}, r"must have the shape \(20, channels\) for 20 labels, got \(19, 3\)"),
        ({"a": np.full((20, 3), np.nan)}, "'a' have values that are no finite numbers"),
        ({}, "there are no features"),
    ],
)
def test_invalid_features_are_errors(features, message):
    with pytest.raises(ValueError, match=message):
        features_by_depth(features, 20)


@pytest.mark.parametrize(("channels", "width"), [(1, 128), (128, 128), (129, 256)])
def test_widths_are_rounded_up(channels, width):
    assert padded(np.ones((2, channels))).shape == (2, width)
