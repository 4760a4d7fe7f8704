"""Datasets of images in memory."""

import hashlib
from collections.abc import Sequence

import numpy as np

from transfer_jax.data.dataset import ImageDataset


def from_arrays(
    images: np.ndarray,
    labels: Sequence[int] | Sequence[str] | np.ndarray,
    class_names: Sequence[str] | None = None,
) -> ImageDataset:
    """Returns a dataset of images in an array.

    Example:
        >>> dataset = from_arrays(np.zeros((20, 32, 32, 3), np.uint8), ["cat", "dog"] * 10)

    Args:
        images: uint8 `(n, height, width)`, `(n, height, width, 1)` or `(n, height, width, 3)` RGB.
        labels: `n` class names, or `n` integers. With `class_names`, integers are positions in it; otherwise
            the sorted distinct values are the classes.
        class_names: The classes in the order of the labels.

    Returns:
        The dataset. The name of an image is its position, such as `image 0`.

    Raises:
        ValueError: If a shape or dtype is invalid, a label is not in `class_names`, or there are fewer than
            two classes.
    """
    images, values = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 in 0..255, got {images.dtype}; scale and convert them first")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)):
        raise ValueError(
            f"images must have shape (n, h, w), (n, h, w, 1) or (n, h, w, 3), got {images.shape}"
        )
    if values.shape != (len(images),):
        raise ValueError(f"labels must have shape ({len(images)},) like the images, got {values.shape}")
    if values.dtype.kind not in "iuU":
        raise ValueError(f"labels must be integers or strings, got {values.dtype}")
    if class_names is None:
        distinct, values = np.unique(values, return_inverse=True)
        names = tuple(map(str, distinct))
    else:
        names = tuple(class_names)
        if values.dtype.kind == "U":
            values = _positions(values, names)
    if len(names) < 2:
        raise ValueError(f"at least two classes are needed, got {list(names)}")
    if np.any((values < 0) | (values >= len(names))):
        raise ValueError(
            f"labels must be in 0..{len(names) - 1} for the classes {list(names)}, "
            f"got {values.min()}..{values.max()}"
        )
    positions = values.astype(np.int32)
    digest = hashlib.sha256(repr((images.shape, names)).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(positions.tobytes())
    return ImageDataset(
        read=lambda i: images[i],
        labels=positions,
        names=[f"image {i}" for i in range(len(images))],
        class_names=names,
        fingerprint=digest.hexdigest(),
    )


def _positions(values: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    if unknown := sorted(set(values.tolist()) - set(names)):
        raise ValueError(f"labels {unknown} are not among the classes {list(names)}")
    return np.array([names.index(value) for value in values.tolist()], dtype=np.int32)
