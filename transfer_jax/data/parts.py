"""The three parts of a set of images: training, validation and test images."""

import dataclasses
from typing import NamedTuple

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.grouped import positions
from transfer_jax.data.split import has_own_split, stratified_split

_VAL, _TEST = "val_fraction (--val-fraction)", "test_fraction (--test-fraction)"


class Parts(NamedTuple):
    """The parts of a set of images, each in the order of the whole set, which is their `parent`.

    Attributes:
        train: The training images.
        validation: The validation images, which choose the epoch and other settings.
        test: The test images, which choose nothing; None if there are none.
    """

    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset | None


def split_in_parts(
    dataset: ImageDataset, val_fraction: float, test_fraction: float = 0.0, seed: int = 0
) -> Parts:
    """Splits a dataset into training, validation and test images, with the proportions of every stratum.

    Validation or test images that the source names stay what they are. All others are drawn by
    `stratified_split`, the test images first, so that they do not depend on `val_fraction`.

    Example:
        >>> train, validation, test = split_in_parts(dataset, val_fraction=0.2, test_fraction=0.2)

    Args:
        dataset: The dataset.
        val_fraction: Fraction of validation images among all images that are no test images of the source.
        test_fraction: Fraction of test images among these images; 0 for none.
        seed: Random seed; the same seed gives the same split.

    Raises:
        ValueError: As `stratified_split`.
    """
    rest, test = _without_own_test(dataset)
    if test is None and test_fraction:
        rest, test = _drawn_test(rest, test_fraction, seed)
        if not has_own_split(rest):
            val_fraction = val_fraction / (1 - test_fraction)
    return Parts(*stratified_split(rest, val_fraction, seed, _VAL), test)


def has_own_test(dataset: ImageDataset) -> bool:
    """Returns True if a dataset has test images according to its source, and others."""
    return dataset.test is not None and bool(dataset.test.any() and not dataset.test.all())


def without_own_test(dataset: ImageDataset) -> ImageDataset:
    """Returns the images of a dataset that are no test images according to its source."""
    return _without_own_test(dataset)[0]


def _without_own_test(dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset | None]:
    if not has_own_test(dataset):
        return dataset, None
    assert dataset.test is not None
    return dataset.part(positions(~dataset.test)), dataset.part(positions(dataset.test))


def _drawn_test(dataset: ImageDataset, fraction: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Draws test images, from the training images if the source has its own validation images."""
    if not has_own_split(dataset):
        return stratified_split(dataset, fraction, seed, _TEST)
    assert dataset.held_out is not None
    training = positions(~dataset.held_out)
    candidates = dataclasses.replace(dataset.subset(training), held_out=None, rows=training, parent=dataset)
    _, drawn = stratified_split(candidates, fraction, seed, _TEST)
    assert drawn.rows is not None
    rest = np.ones(len(dataset), bool)
    rest[drawn.rows] = False
    return dataset.part(positions(rest)), dataset.part(drawn.rows)
