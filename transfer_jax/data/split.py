"""Stratified splits of a dataset, and random subsets of it."""

import math
from collections.abc import Sequence

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.grouped import Grouped, group_sizes, positions
from transfer_jax.data.image_files import abridged
from transfer_jax.data.stratified_shuffle import held_out_mask
from transfer_jax.former_names import with_former_arguments
from transfer_jax.tasks import SingleLabel


@with_former_arguments
def stratified_split(
    dataset: ImageDataset, val_fraction: float, seed: int, option: str = "val_fraction (--val-fraction)"
) -> tuple[ImageDataset, ImageDataset]:
    """Splits a dataset into training and validation images, with the proportions of every stratum.

    The strata are `dataset.strata` if each of them can be divided, otherwise the classes. Each class with two
    images or more has at least one on each side. A class with one image, or with one group of
    `dataset.together`, stays in training and has no validation image; see `unevaluated_classes`. A dataset
    with a split of its own (`held_out`) keeps it, and `val_fraction` has no effect.

    Example:
        >>> train, validation = stratified_split(dataset, val_fraction=0.25, seed=0)

    Args:
        dataset: The dataset.
        val_fraction: Fraction of validation images, between 0 and 1; their number is rounded up. If
            `dataset.together` is set, it is the fraction of its groups. Classes that cannot be divided do not
            count.
        seed: Random seed; the same seed gives the same split.
        option: The setting of the fraction, for messages.

    Returns:
        The training and the validation images, each in the order of the dataset, which is their `parent`.

    Raises:
        ValueError: If the fraction is not between 0 and 1, fewer than two classes have images, no class can
            be divided, a part would have fewer images than there are classes (the message names a fraction
            that works), or the split of the dataset has classes without training images.
    """
    train, validation = _indices(dataset, val_fraction, seed, option)
    return dataset.part(train), dataset.part(validation)


def _indices(
    dataset: ImageDataset, val_fraction: float, seed: int, option: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the positions of the training and of the validation images."""
    if not 0 < val_fraction < 1:
        raise ValueError(f"{option.split()[0]} must be between 0 and 1, got {val_fraction}")
    if has_own_split(dataset):
        assert dataset.held_out is not None
        counts = _counts_of(dataset, ~dataset.held_out), _counts_of(dataset, dataset.held_out)
        missing = np.flatnonzero((counts[0] == 0) & (counts[1] > 0))
        if untrained := [dataset.class_names[label] for label in missing]:
            raise ValueError(
                f"classes have validation images but no training images: {abridged(untrained)}. Add training "
                "images, or remove the validation images of these classes"
            )
        return positions(~dataset.held_out), positions(dataset.held_out)
    of_image = dataset.strata_of_labels
    classes = np.flatnonzero(group_sizes(of_image))
    if len(classes) < 2 and isinstance(dataset.task, SingleLabel):
        found = abridged([dataset.class_names[label] for label in classes])
        images = counted(len(dataset), "image")
        raise ValueError(f"a split needs images of at least two classes, got {found} ({images})")
    if dataset.together is None:
        held_out = _held_out(of_image, dataset.strata, val_fraction, seed, "image", option)
    else:
        firsts, group = _groups(dataset.together)
        strata = None if dataset.strata is None else dataset.strata[firsts]
        labels = of_image[firsts]
        groups = _held_out(labels, strata, val_fraction, seed, "group of near duplicates", option)
        _keep_large_groups(labels, np.bincount(group), groups, seed)
        held_out = groups[group]
        # A group may contain images of several classes, and all that a class has.
        untrained = np.setdiff1d(classes, of_image[~held_out])
        held_out &= ~np.isin(group, group[np.isin(of_image, untrained)])
        if not held_out.any():
            raise ValueError(
                "near duplicates connect the images of all classes, so none is left for validation. "
                "Divide them with keep_together=False (--no-keep-together)"
            )
    return positions(~held_out), positions(held_out)


def _counts_of(dataset: ImageDataset, chosen: np.ndarray) -> np.ndarray:
    """Returns the number of chosen images of each class or label, int `(classes,)`.

    Args:
        dataset: The dataset.
        chosen: bool `(n,)`.
    """
    return dataset.task.counts(dataset.labels[chosen])


def has_own_split(dataset: ImageDataset) -> bool:
    """Returns True if a dataset has both training and validation images according to its source."""
    return dataset.held_out is not None and bool(dataset.held_out.any() and not dataset.held_out.all())


def divisible_counts(dataset: ImageDataset, together: np.ndarray | None) -> np.ndarray:
    """Returns the number of images of each class that a split can divide, or of groups, int `(classes,)`.

    The strata of labels are the classes of a task without classes.

    Args:
        dataset: The dataset.
        together: The group of each image, `(n,)`; None if each image is on its own.
    """
    labels = dataset.strata_of_labels
    labels = labels if together is None else labels[_groups(together)[0]]
    return group_sizes(labels, len(dataset.class_names))


def unevaluated_classes(training: ImageDataset, validation: ImageDataset) -> tuple[str, ...]:
    """Returns the classes or labels that have training images but no validation images.

    Args:
        training: The training images.
        validation: The validation images.
    """
    counts = validation.counts()
    return tuple(name for name, count in training.counts().items() if count and not counts[name])


def unevaluated_text(classes: Sequence[str]) -> str:
    """Returns the beginning of a sentence about classes without validation images."""
    return f"{counted(len(classes), 'class')} without validation images ({abridged(classes)})"


def _groups(together: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the position of the first image of each group, and the group of each image."""
    _, firsts, group = np.unique(together, return_index=True, return_inverse=True)
    return firsts, group


def _held_out(
    labels: np.ndarray, strata: np.ndarray | None, val_fraction: float, seed: int, unit: str, option: str
) -> np.ndarray:
    """Returns bool `(n,)`, True for the items that are held out.

    Args:
        labels: The class of each item, `(n,)`.
        strata: The stratum of each item; None for classes.
        val_fraction: Fraction of the items that is held out.
        seed: Random seed.
        unit: The kind of the items, for messages.
        option: The setting of the fraction, for messages.
    """
    classes = Grouped(labels)
    if not np.any(classes.sizes > 1):
        advice = "add images, or name them by a source with a split of its own"
        if unit != "image":
            advice = "add images, or divide near duplicates with keep_together=False (--no-keep-together)"
        raise ValueError(f"each class has a single {unit}, so none is left for validation: {advice}")
    obstacle, held_out = "", None
    if strata is not None:
        divisible = positions((classes.sizes > 1)[labels])
        finer = Grouped(np.unique(strata[divisible], return_inverse=True)[1])
        obstacle = _obstacle(finer.sizes, val_fraction, unit, option)
        if obstacle is None:
            held_out = np.zeros(len(labels), bool)
            held_out[divisible] = held_out_mask(finer, math.ceil(val_fraction * len(divisible)), seed)
    if held_out is None:
        sizes = classes.sizes[classes.sizes > 1]
        if (obstacle := _obstacle(sizes, val_fraction, unit, option)) is not None:
            raise ValueError(obstacle)
        held_out = held_out_mask(classes, math.ceil(val_fraction * int(sizes.sum())), seed)
    _put_on_both_sides(classes, labels, held_out, seed)
    return held_out


def _keep_large_groups(labels: np.ndarray, sizes: np.ndarray, held_out: np.ndarray, seed: int) -> None:
    """Exchanges a held-out group with more than half of a class's images for another group of the class.

    Args:
        labels: The class of each group, `(groups,)`; a class with a held-out group has another one.
        sizes: The number of images of each group, `(groups,)`.
        held_out: bool `(groups,)`, changed in place.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    images, classes = np.bincount(labels, weights=sizes)[labels], Grouped(labels)
    for large in np.flatnonzero(held_out & (2 * sizes > images)):
        members = classes.members(labels[large])
        other = rng.choice(members[~held_out[members]])
        held_out[large], held_out[other] = False, True


def _put_on_both_sides(classes: Grouped, labels: np.ndarray, held_out: np.ndarray, seed: int) -> None:
    """Exchanges items so that each class has one on each side; classes with few items may have none.

    Args:
        classes: The items by class.
        labels: The class of each item, `(n,)`.
        held_out: bool `(n,)`, changed in place.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    divisible = np.flatnonzero(classes.sizes > 1)
    for side in (True, False):
        counts = group_sizes(labels[held_out], len(classes.sizes))
        counts = np.where(classes.sizes > 1, counts if side else classes.sizes - counts, 0)
        for label in divisible[counts[divisible] == 0]:
            donor = counts.argmax()
            members = classes.members(donor)
            given = rng.choice(members[held_out[members] == side])
            taken = rng.choice(classes.members(label))
            held_out[given], held_out[taken] = not side, side
            counts[donor], counts[label] = counts[donor] - 1, 1


def limit_per_class(dataset: ImageDataset, per_class: int, seed: int) -> ImageDataset:
    """Draws a random subset with a limited number of images of each class, in the order of the dataset.

    Args:
        dataset: The dataset.
        per_class: Largest number of images of a class; a class with fewer images keeps all.
        seed: Random seed. With the same seed, smaller subsets are contained in larger ones.

    Raises:
        ValueError: If the images have no classes.
    """
    if not isinstance(dataset.task, SingleLabel):
        raise ValueError(
            f"images_per_class={per_class} needs one class for each image, and the task is "
            f"{dataset.task.kind}"
        )
    order = np.random.default_rng(seed).permutation(len(dataset))
    classes = Grouped(dataset.labels[order])
    drawn = [order[classes.members(label)[:per_class]] for label in range(len(classes.sizes))]
    return dataset.part(np.sort(np.concatenate(drawn)))


def _obstacle(sizes: np.ndarray, val_fraction: float, unit: str, option: str) -> str | None:
    """Returns the reason why a split by strata of some sizes is impossible, or None if it is possible."""
    total, classes = int(sizes.sum()), len(sizes)
    if sizes.min() < 2:
        return f"a stratum has a single {unit}"
    in_eval = math.ceil(val_fraction * total)
    for count, side in ((in_eval, "validation"), (total - in_eval, "training")):
        if count < classes:
            units = unit.replace("image", "images").replace("group", "groups")
            left = f"leaves {counted(count, f'{side} {unit}', f'{side} {units}')} for {classes:,} classes"
            works = _working_fraction(total, classes)
            name = option.split()[0]
            return f"{name} {val_fraction} {left}; set {option} to {works}, so that each class has one"
    return None


def _working_fraction(total: int, classes: int) -> float:
    """Returns the smallest fraction of few digits that leaves an item of each class on each side."""
    for digits in range(2, 9):
        fraction = math.ceil(10**digits * classes / total) / 10**digits
        if classes <= math.ceil(fraction * total) <= total - classes:
            return fraction
    return classes / total
