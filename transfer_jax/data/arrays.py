"""Datasets of images in memory."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.example_images import pillow_pixels
from transfer_jax.data.targets import make_targets
from transfer_jax.tasks import SingleLabel


def from_arrays(
    images: Any,
    labels: Any,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
    *,
    task: str = "auto",
) -> ImageDataset:
    """Returns a dataset of images in memory.

    Example:
        >>> dataset = from_arrays(np.zeros((20, 32, 32, 3), np.uint8), ["cat", "dog"] * 10)

    Args:
        images: uint8 `(n, height, width)`, `(n, height, width, 1)` or `(n, height, width, 3)` RGB, also
            memory-mapped; or a list of single images as arrays or Pillow images, whose sizes may differ.
        labels: `n` class names, whole numbers or booleans: a list, an array, a column of a table or a tensor.
            With `class_names`, numbers are positions in it; otherwise the sorted distinct values are the
            classes.
        class_names: The classes in the order of the labels; or a mapping from numbers to names, or from
            names to numbers. For other tasks the labels or the quantities.
        task: `single_label`, `multi_label`, `regression` or `ordinal`, whose labels are as for
            `make_targets`; `auto` is `single_label`.

    Returns:
        The dataset. The name of an image is its position, such as `image 0`.

    Raises:
        ValueError: If a shape or dtype is invalid, a label is missing, is not in `class_names` or is no
            class, or there are fewer than two classes.
    """
    parts, shape = _of_list(images) if isinstance(images, list | tuple) else _of_array(images)
    positions, found = make_targets(labels, task, class_names)
    names = found.names
    if len(positions) != len(parts):
        single = len(shape) == 3 and shape[-1] in (1, 3) and len(positions) == 1
        hint = "pass one image as images[None]" if single else "each image needs one"
        raise ValueError(f"got {len(positions)} labels for {len(parts)} images; {hint}")
    if len(names) < 2 and isinstance(found, SingleLabel):
        raise ValueError(f"at least two classes are needed, got {list(names)}")
    digest = hashlib.sha256(repr((shape, names)).encode())
    for image in parts:  # One at a time: they may be a view whose copy does not fit into memory.
        digest.update(np.ascontiguousarray(image).data)
    digest.update(positions.tobytes())
    return ImageDataset(
        read=parts.__getitem__,
        labels=positions,
        names=[f"image {i}" for i in range(len(parts))],
        class_names=names,
        task=found,
        fingerprint=digest.hexdigest(),
    )


def _of_array(images: Any) -> tuple[np.ndarray, tuple]:
    """Returns images in one array, and their shape."""
    array = np.asarray(images)
    _check(array, array.shape, "images")
    return array, array.shape


def _of_list(images: Sequence[Any]) -> tuple[list[np.ndarray], tuple]:
    """Returns a list of images as arrays, and their shapes: that of one array if all are equal."""
    arrays = [_pixels(image, f"image {position}") for position, image in enumerate(images)]
    for position, array in enumerate(arrays):
        _check(array, (len(arrays), *array.shape), f"image {position}")
    if not arrays:
        raise ValueError("images must not be empty")
    shapes = tuple(array.shape for array in arrays)
    return arrays, (len(arrays), *shapes[0]) if len(set(shapes)) == 1 else shapes


def _pixels(image: Any, name: str) -> np.ndarray:
    """Returns an image of a list as an array."""
    if isinstance(image, str | bytes | os.PathLike):
        raise ValueError(f"images must be pixels, got {image!r}; from_csv and from_folder read files")
    if not isinstance(image, Image.Image):
        return np.asarray(image)
    return pillow_pixels(image, name)


def _check(images: np.ndarray, shape: tuple[int, ...], name: str) -> None:
    """Raises an error that says how to convert images to uint8 of a valid shape."""
    if images.dtype != np.uint8:
        raise ValueError(
            f"{name} must be uint8 in 0..255, got {images.dtype}{_range(images)}; {_conversion(images)}"
        )
    if 0 not in shape and (len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3))):
        return
    hint = ""
    if 0 in shape:
        hint = "; there are no pixels"
    elif len(shape) == 4 and shape[-1] == 4:
        hint = "; drop the alpha channel with images[..., :3]"
    elif len(shape) == 4 and shape[1] in (1, 3):
        hint = "; channels must be last: images.transpose(0, 2, 3, 1)"
    elif len(shape) == 2:
        hint = "; one image needs images[None], flattened images need images.reshape(-1, height, width)"
    raise ValueError(f"images must have shape (n, h, w), (n, h, w, 1) or (n, h, w, 3), got {shape}{hint}")


def _range(images: np.ndarray) -> str:
    if images.dtype.kind not in "iuf" or not images.size:
        return ""
    return f" in {images.min():g}..{images.max():g}"


def _conversion(images: np.ndarray) -> str:
    """Returns how to convert pixels of another dtype to uint8."""
    kind = images.dtype.kind
    if kind == "b":
        return "convert them with images.astype(np.uint8) * 255"
    if kind not in "iuf" or not images.size:
        return "convert them to arrays of pixels first"
    least, largest = float(images.min()), float(images.max())
    if not np.isfinite(least) or not np.isfinite(largest):
        return "replace the values that are no finite numbers first"
    if kind == "f" and least >= 0 and largest <= 1:
        return "convert them with (images * 255).round().astype(np.uint8)"
    if kind == "f" and least >= -1 and largest <= 1:
        return "convert them with ((images + 1) * 127.5).round().astype(np.uint8)"
    if least >= 0 and largest <= 255:
        rounded = "images.round()" if kind == "f" else "images"
        return f"if black is 0 and white 255, convert them with {rounded}.astype(np.uint8)"
    return "scale them to 0..255 and convert them with .astype(np.uint8) first"
