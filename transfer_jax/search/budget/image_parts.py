"""Parts of the images, on which networks are compared quickly."""

import numpy as np

from transfer_jax.data import ImageDataset

Part = tuple[ImageDataset, ImageDataset]
"""Training and validation images."""


def part_of(train: ImageDataset, validation: ImageDataset, images: int) -> Part:
    """Returns some training images and half as many validation images, or all of them if they are few."""
    if len(train) <= 2 * images:
        return train, validation
    return sample(train, images), sample(validation, images // 2)


def sample(dataset: ImageDataset, images: int) -> ImageDataset:
    """Returns a part of a dataset with the proportions of its classes, or all of it if it is no larger."""
    if len(dataset) <= images:
        return dataset
    order = np.random.default_rng(0).permutation(len(dataset))
    by_class = order[np.argsort(dataset.strata_of_labels[order], kind="stable")]
    return dataset.part(np.sort(by_class[np.linspace(0, len(order) - 1, images).astype(int)]))
