"""The inputs of a pass over images or other examples, read batch by batch."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transfer_jax.data import ImageDataset, from_arrays, image_fetch, load_dataset
from transfer_jax.data.example_source import open_source, own_fingerprint
from transfer_jax.data.image_files import from_files, image_files
from transfer_jax.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Examples that are read in batches. `inputs[i]` is the tree of one example.

    Attributes:
        size: Number of examples.
        fetch: Function from positions `(batch,)` to a tree of arrays with the examples on axis 0.
        fingerprint: Hash of the examples; None if none is known.
    """

    size: int
    fetch: Callable[[np.ndarray], Any]
    fingerprint: str | None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], self.fetch(np.array([index])))

    def shapes(self, examples: int) -> Any:
        """Returns the shapes of a batch."""
        first = self.fetch(np.zeros(1, np.int64))
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((examples, *np.shape(leaf)[1:]), _dtype(leaf)), first
        )


def dataset_inputs(dataset: ImageDataset, preprocessing: Preprocessing) -> Inputs:
    """Returns the examples of a dataset as inputs.

    Args:
        dataset: The dataset. A batch is `image`, uint8 `(batch, size, size, 3)`, or its arrays by name.
        preprocessing: Size, crop and interpolation of images.
    """
    fetch = image_fetch(dataset.in_pieces(), preprocessing)
    if dataset.inputs is not None:
        return Inputs(len(dataset), lambda rows: fetch(rows)["inputs"], dataset.fingerprint)
    described = f"{dataset.fingerprint} {dataclasses.asdict(preprocessing)}"
    fingerprint = hashlib.sha256(described.encode()).hexdigest()
    return Inputs(len(dataset), lambda rows: {"image": fetch(rows)["image"]}, fingerprint)


def open_images(images: Any) -> ImageDataset | None:
    """Returns images as a dataset, or None if they are something else than a dataset, files or pixels.

    Args:
        images: A dataset; a source that `load_dataset` takes, or a folder of images without classes; paths of
            files; uint8 pixels `(n, height, width, 3)`, or a list of single images; or these as the entry
            `image` of a dictionary.

    Raises:
        ValueError: If pixels have another dtype or shape.
        FileNotFoundError: If a path does not exist.
    """
    if isinstance(images, ImageDataset):
        return images
    if isinstance(images, Mapping) and "image" in images:
        images = images["image"]
    if isinstance(images, str | os.PathLike):
        return _opened(images)
    if (
        isinstance(images, list | tuple)
        and images
        and all(isinstance(each, str | os.PathLike) for each in images)
    ):
        return _unlabelled(images)
    if hasattr(images, "shape") or _is_list_of_images(images):
        count = len(images)
        return from_arrays(images, np.zeros(count, np.int64), ("unknown", "none"))
    return None


def example_inputs(examples: Any) -> Inputs:
    """Returns examples of any model as inputs.

    Args:
        examples: A tree of arrays with the examples on axis 0, or anything with `__len__` and `__getitem__`
            whose items are trees of arrays of one example. A single array is the entry `image` of a batch.

    Raises:
        ValueError: If there are no examples, they have no length or no random access, or the arrays have
            different numbers of them.
    """
    if hasattr(examples, "shape"):
        examples = {"image": examples}
    if isinstance(examples, Mapping | tuple):
        return _of_arrays(examples)
    source = open_source(examples, "images")
    return Inputs(len(source), functools.partial(_stacked, source), own_fingerprint(examples))


def _of_arrays(tree: Any) -> Inputs:
    arrays = jax.tree.map(np.asarray, tree)
    arrays = {k: v for k, v in arrays.items() if _is_numeric(v)} if isinstance(arrays, dict) else arrays
    shapes = [leaf.shape for leaf in jax.tree.leaves(arrays)]
    sizes = {shape[0] if shape else 0 for shape in shapes}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"all arrays need the examples on axis 0, at least one; their shapes are {shapes}")
    return Inputs(shapes[0][0], lambda rows: jax.tree.map(lambda leaf: leaf[rows], arrays))


def _stacked(examples: Sequence[Any], rows: np.ndarray) -> Any:
    """Returns a batch of examples, without entries such as strings that no model takes."""
    trees = [jax.tree.map(np.asarray, examples[int(row)]) for row in rows]
    if isinstance(trees[0], Mapping):
        kept = [name for name, value in trees[0].items() if _is_numeric(value)]
        trees = [{name: tree[name] for name in kept} for tree in trees]
    elif hasattr(trees[0], "shape"):
        trees = [{"image": tree} for tree in trees]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _is_numeric(value: Any) -> bool:
    return all(leaf.dtype.kind not in "OUST" for leaf in jax.tree.leaves(value))


def _dtype(leaf: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)


def _is_list_of_images(images: Any) -> bool:
    if not isinstance(images, list | tuple) or not images:
        return False
    return all(hasattr(each, "shape") or hasattr(each, "getexif") for each in images)


def _opened(source: str | os.PathLike[str]) -> ImageDataset:
    """Opens a source of labelled images, or a folder or a file without classes."""
    path = Path(os.path.expanduser(os.fspath(source)))
    if path.is_file() and path.suffix != ".csv":
        return _unlabelled([path])
    try:
        return load_dataset(source, least_classes=1)
    except ValueError:
        if not path.is_dir():
            raise
        return _unlabelled(path)


def _unlabelled(paths: Any) -> ImageDataset:
    files = image_files(paths)[0]
    return from_files(files, [str(file) for file in files], [0] * len(files), ("unknown",))
