"""Functions that read batches of images for a pipeline: not augmented, augmented, or fixed views.

Of a dataset whose examples are not images (`ImageDataset.inputs`), they read the arrays as they are, without
augmentation; the entry `inputs` of a batch, a dictionary, takes the place of `image`.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from transfer_jax.data.augmentation import Augmentation
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.input_arrays import blank_inputs, stack_inputs
from transfer_jax.data.pipeline import Batch, Fetch, RandomFetch
from transfer_jax.data.source_image import SourceImage
from transfer_jax.data.transforms import Source, eval_transform, train_transform

if TYPE_CHECKING:
    from transfer_jax.models.preprocessing import Preprocessing


def image_fetch(
    dataset: ImageDataset, preprocessing: "Preprocessing", bad: dict[int, BadImageError] | None = None
) -> Fetch:
    """Returns a function that reads batches of images as evaluation uses them.

    Args:
        dataset: The images.
        preprocessing: Size, crop and interpolation of the images.
        bad: Receives the error of each bad image by its position; a black image takes its place. None raises
            the error.

    Returns:
        A function from int indices `(batch,)` to a dictionary of `image`, uint8
        `(batch, image_size, image_size, 3)`, and the entries of `ImageDataset.labels_and_weights`. The
        compiled step normalizes the images with mean and std. For examples that are not images, `inputs`
        takes the place of `image`: a dictionary of arrays by name, each `(batch, *shape)` with the shapes
        and dtypes of `ImageDataset.inputs`.
    """
    return _Plain(dataset, preprocessing, bad)


def augmented_image_fetch(
    dataset: ImageDataset, preprocessing: "Preprocessing", augmentation: Augmentation
) -> RandomFetch:
    """Returns a function that reads batches of augmented images.

    Args:
        dataset: The images.
        preprocessing: Size, crop and interpolation of the images.
        augmentation: The augmentation.

    Returns:
        A function from int indices `(batch,)`, their positions in the batch and a random generator to the
        entries of `image_fetch`. One number is drawn from the generator; this number and the position seed
        the augmentation of an image.
    """
    return _Augmented(dataset, preprocessing, augmentation)


def view_fetch(
    dataset: ImageDataset, preprocessing: "Preprocessing", augmentation: Augmentation, seed: int
) -> Fetch:
    """Returns a function that reads fixed augmented views, whose features can be cached.

    Args:
        dataset: The images.
        preprocessing: Size, crop and interpolation of the images.
        augmentation: The augmentation.
        seed: Seed of all views.

    Returns:
        A function from int rows `(batch,)` to the entries of `image_fetch`. Row `view * len(dataset) + i` is
        image `i` with the augmentation of the seed sequence `(seed, view, i)`, which is always the same; its
        `index` is `i`.
    """
    return _Views(dataset, preprocessing, augmentation, seed)


_BLACK = Image.new("RGB", (1, 1))


@dataclasses.dataclass(frozen=True)
class _Reader:
    """A dataset and the size of its images. A copy for another process has what reading needs only."""

    dataset: ImageDataset
    preprocessing: "Preprocessing"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "dataset": self.dataset.for_reading()}


@dataclasses.dataclass(frozen=True)
class _Plain(_Reader):
    bad: dict[int, BadImageError] | None = None

    def __call__(self, indices: np.ndarray) -> Batch:
        return _batch(
            self.dataset, indices, lambda image, row: eval_transform(image, self.preprocessing), self.bad
        )


@dataclasses.dataclass(frozen=True)
class _Augmented(_Reader):
    augmentation: Augmentation

    def __call__(self, indices: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> Batch:
        seed = int(rng.integers(2**63))
        return _batch(
            self.dataset,
            indices,
            lambda image, row: train_transform(
                image, self.preprocessing, self.augmentation, np.random.default_rng((seed, int(places[row])))
            ),
        )


@dataclasses.dataclass(frozen=True)
class _Views(_Reader):
    augmentation: Augmentation
    seed: int

    def __call__(self, rows: np.ndarray) -> Batch:
        views, indices = np.divmod(rows, len(self.dataset))
        return _batch(
            self.dataset,
            indices,
            lambda image, row: train_transform(
                image,
                self.preprocessing,
                self.augmentation,
                np.random.default_rng((self.seed, int(views[row]), int(indices[row]))),
            ),
        )


@dataclasses.dataclass(frozen=True)
class Unaugmented:
    """A `RandomFetch` without randomness.

    Attributes:
        fetch: The function that reads the examples.
    """

    fetch: Fetch

    def __call__(self, indices: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> Batch:
        return self.fetch(indices)


def _batch(
    dataset: ImageDataset,
    indices: np.ndarray,
    transform: Callable[[Source, int], np.ndarray],
    bad: dict[int, BadImageError] | None = None,
) -> Batch:
    """Reads images and applies `transform(image, position in the batch)` to each; `bad` as for `image_fetch`.

    Raises:
        BadImageError: If an image is bad and `bad` is None. The message names the option that skips it.
    """
    found: list = []
    for row, content in enumerate(dataset.contents(indices)):
        index = int(indices[row])
        try:
            example = dataset.opened(index, content)
            found.append(transform(example, row) if isinstance(example, SourceImage) else example)
        except BadImageError as error:
            if bad is None:
                advice = "" if dataset.inputs is not None else "; --on-bad-image skip leaves bad images out"
                raise BadImageError(f"{error}{advice}") from error
            bad[index] = error
            found.append(transform(_BLACK, row) if dataset.inputs is None else blank_inputs(dataset.inputs))
    stacked = {"image": np.stack(found)} if dataset.inputs is None else {"inputs": stack_inputs(found)}
    return {**stacked, **dataset.labels_and_weights(indices)}
