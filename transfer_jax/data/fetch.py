"""What a pipeline fetches from an image dataset: whole batches, plain, augmented or in fixed views."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from transfer_jax.data.augmentation import Augmentation
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.pipeline import Batch, Fetch, RandomFetch
from transfer_jax.data.transforms import eval_transform, train_transform

if TYPE_CHECKING:
    from transfer_jax.models.preprocessing import Preprocessing


def image_fetch(dataset: ImageDataset, preprocessing: "Preprocessing") -> Fetch:
    """Fetches images as evaluation sees them.

    Returns:
        A function from indices `(b,)` to `image`, uint8 `(b, image_size, image_size, 3)`, and the entries of
        `ImageDataset.of_rows`. Normalization with mean and std is left to the compiled step.
    """
    return lambda indices: _batch(dataset, indices, lambda image, row: eval_transform(image, preprocessing))


def augmented_image_fetch(
    dataset: ImageDataset, preprocessing: "Preprocessing", augmentation: Augmentation
) -> RandomFetch:
    """Fetches images varied for training.

    Returns:
        A function from indices `(b,)`, their places in the batch and a generator to the entries of
        `image_fetch`. One number is drawn from the generator; its place gives an image a generator of its
        own.
    """

    def fetch(indices: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> Batch:
        seed = int(rng.integers(2**63))
        return _batch(
            dataset,
            indices,
            lambda image, row: train_transform(
                image, preprocessing, augmentation, np.random.default_rng((seed, int(places[row])))
            ),
        )

    return fetch


def view_fetch(
    dataset: ImageDataset, preprocessing: "Preprocessing", augmentation: Augmentation, seed: int
) -> Fetch:
    """Fetches fixed augmented views, so that features of augmented images can be cached.

    Returns:
        A function from rows `(b,)` to the entries of `image_fetch`. Row `view * len(dataset) + i` is image
        `i` under the augmentation that the seed sequence `(seed, view, i)` draws, always the same; its
        `index` is `i`.
    """

    def fetch(rows: np.ndarray) -> Batch:
        views, indices = np.divmod(rows, len(dataset))
        return _batch(
            dataset,
            indices,
            lambda image, row: train_transform(
                image,
                preprocessing,
                augmentation,
                np.random.default_rng((seed, int(views[row]), int(indices[row]))),
            ),
        )

    return fetch


def _batch(
    dataset: ImageDataset, indices: np.ndarray, transform: Callable[[Image.Image, int], np.ndarray]
) -> Batch:
    """Reads the images and applies `transform(image, position in the batch)`."""
    images = [transform(dataset.picture(int(index)), row) for row, index in enumerate(indices)]
    return {"image": np.stack(images), **dataset.of_rows(indices)}
