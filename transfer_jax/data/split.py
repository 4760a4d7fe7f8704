"""Splitting a dataset in two, keeping the proportions of its groups, and drawing a part of it."""

import math

import numpy as np

from transfer_jax.data.dataset import ImageDataset


def stratified_split(
    dataset: ImageDataset, eval_fraction: float, seed: int
) -> tuple[ImageDataset, ImageDataset]:
    """Draws an evaluation part in which every stratum has its share, or takes the one that the source has.

    The strata are the dataset's where it has them and each can be divided, otherwise its classes. A dataset
    whose source sets some images aside (`held_out`) is split so, whatever the fraction.

    Args:
        dataset: What to split.
        eval_fraction: Share of the images to set aside, between 0 and 1; the count is rounded up. Where
            images belong together, it is the share of such sets.
        seed: The same seed gives the same split.

    Returns:
        The training and the evaluation part, each in the order of the dataset, which is their `whole`.

    Raises:
        ValueError: If the fraction is not between 0 and 1, fewer than two classes have images, a class
            has only one, or a part would hold fewer images than there are classes.
    """
    train, evaluation = _indices(dataset, eval_fraction, seed)
    return dataset.part(train), dataset.part(evaluation)


def _indices(dataset: ImageDataset, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the two parts."""
    if not 0 < eval_fraction < 1:
        raise ValueError(f"eval_fraction must lie between 0 and 1, got {eval_fraction}")
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
    """Whether its source sets some images aside to evaluate on; a part of it does not any more."""
    return dataset.held_out is not None and bool(dataset.held_out.any() and not dataset.held_out.all())


def _drawn(dataset: ImageDataset, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    _check_classes(dataset)
    groups = dataset.strata
    if groups is None or _obstacle(groups, eval_fraction) is not None:
        groups = dataset.labels
    if (obstacle := _obstacle(groups, eval_fraction)) is not None:
        raise ValueError(f"{obstacle}; classes: {dataset.counts()}")

    from sklearn.model_selection import StratifiedShuffleSplit  # Takes a second to import.

    splitter = StratifiedShuffleSplit(n_splits=1, test_size=eval_fraction, random_state=seed)
    train, evaluation = next(splitter.split(np.zeros(len(dataset)), groups))
    return np.sort(train), np.sort(evaluation)


def fewer(dataset: ImageDataset, per_class: int, seed: int) -> ImageDataset:
    """So many images of each class at most, drawn at random, in the order of the dataset.

    Args:
        dataset: What to draw from.
        per_class: How many; a class that has fewer keeps all.
        seed: The same seed draws the fewer among the more.
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
    if lonely := [name for name, count in counts.items() if count == 1]:
        raise ValueError(f"a class with one image cannot be split: {lonely}; classes: {dataset.counts()}")


def _obstacle(groups: np.ndarray, eval_fraction: float) -> str | None:
    """Why a split by these groups is impossible, if it is."""
    _, sizes = np.unique(groups, return_counts=True)
    in_eval = math.ceil(eval_fraction * len(groups))
    in_train = len(groups) - in_eval
    if sizes.min() < 2:
        return "a group has a single image"
    if in_eval < len(sizes):
        return f"eval_fraction {eval_fraction} leaves {in_eval} images to evaluate {len(sizes)} classes on"
    if in_train < len(sizes):
        return f"eval_fraction {eval_fraction} leaves {in_train} images to train {len(sizes)} classes on"
    return None
