"""Stratified splits of a dataset, and random subsets of it."""

import math

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.stratified_shuffle import stratified_shuffle


def stratified_split(
    dataset: ImageDataset, eval_fraction: float, seed: int
) -> tuple[ImageDataset, ImageDataset]:
    """Splits a dataset into training and validation images, with the proportions of every stratum.

    The strata are `dataset.strata` if each of them can be divided, otherwise the classes. A dataset with a
    split of its own (`held_out`) keeps it, and `eval_fraction` has no effect.

    Example:
        >>> train, validation = stratified_split(dataset, eval_fraction=0.25, seed=0)

    Args:
        dataset: The dataset.
        eval_fraction: Fraction of validation images, between 0 and 1; their number is rounded up. If
            `dataset.together` is set, it is the fraction of its groups.
        seed: Random seed; the same seed gives the same split.

    Returns:
        The training and the validation images, each in the order of the dataset, which is their `parent`.

    Raises:
        ValueError: If the fraction is not between 0 and 1, fewer than two classes have images, a class has
            only one image, or a part would have fewer images than there are classes.
    """
    train, validation = _indices(dataset, eval_fraction, seed)
    return dataset.part(train), dataset.part(validation)


def _indices(dataset: ImageDataset, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the training and of the validation images."""
    if not 0 < eval_fraction < 1:
        raise ValueError(f"eval_fraction must be between 0 and 1, got {eval_fraction}")
    if has_own_split(dataset):
        assert dataset.held_out is not None
        return np.flatnonzero(~dataset.held_out), np.flatnonzero(dataset.held_out)
    if dataset.together is None:
        return _drawn(dataset, eval_fraction, seed)
    _, firsts, group = np.unique(dataset.together, return_index=True, return_inverse=True)
    _, drawn = _drawn(dataset.subset(firsts), eval_fraction, seed)
    held_out = np.isin(group, drawn)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def has_own_split(dataset: ImageDataset) -> bool:
    """Returns True if a dataset has both training and validation images according to its source."""
    return dataset.held_out is not None and bool(dataset.held_out.any() and not dataset.held_out.all())


def _drawn(dataset: ImageDataset, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    _check_classes(dataset)
    groups = dataset.strata
    if groups is None or _obstacle(groups, eval_fraction) is not None:
        groups = dataset.labels
    if (obstacle := _obstacle(groups, eval_fraction)) is not None:
        raise ValueError(f"{obstacle}; classes: {dataset.counts()}")
    return stratified_shuffle(groups, math.ceil(eval_fraction * len(groups)), seed)


def limit_per_class(dataset: ImageDataset, per_class: int, seed: int) -> ImageDataset:
    """Draws a random subset with a limited number of images of each class, in the order of the dataset.

    Args:
        dataset: The dataset.
        per_class: Largest number of images of a class; a class with fewer images keeps all.
        seed: Random seed. With the same seed, smaller subsets are contained in larger ones.
    """
    order = np.random.default_rng(seed).permutation(len(dataset))
    labels = dataset.labels[order]
    classes = range(len(dataset.class_names))
    drawn = [order[np.flatnonzero(labels == label)[:per_class]] for label in classes]
    return dataset.part(np.sort(np.concatenate(drawn)))


def _check_classes(dataset: ImageDataset) -> None:
    counts = {name: count for name, count in dataset.counts().items() if count}
    if len(counts) < 2:
        raise ValueError(f"a split needs images of at least two classes, got {dataset.counts()}")
    if single := [name for name, count in counts.items() if count == 1]:
        raise ValueError(f"a class with one image cannot be split: {single}; classes: {dataset.counts()}")


def _obstacle(groups: np.ndarray, eval_fraction: float) -> str | None:
    """Returns the reason why a split by groups is impossible, or None if it is possible."""
    _, sizes = np.unique(groups, return_counts=True)
    in_eval = math.ceil(eval_fraction * len(groups))
    in_train = len(groups) - in_eval
    if sizes.min() < 2:
        return "a group has a single image"
    if in_eval < len(sizes):
        return f"eval_fraction {eval_fraction} leaves {in_eval} validation images for {len(sizes)} classes"
    if in_train < len(sizes):
        return f"eval_fraction {eval_fraction} leaves {in_train} training images for {len(sizes)} classes"
    return None
