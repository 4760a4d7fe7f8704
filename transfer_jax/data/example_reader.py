"""Reading of the examples of sources: one at a time, as images or as arrays, with clear errors."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.data.contents import Content, read_again
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.example_fields import Field, label_value, part_of
from transfer_jax.data.example_images import image_content
from transfer_jax.data.input_arrays import InputSpec, as_input, check_input

SAMPLE = 8
"""Number of examples that are read to look at them."""


class ExampleReader:
    """The examples of one source, or of a source and a validation source after it.

    Args:
        sources: Sources with `__len__` and `__getitem__`.
        name: First word of the names of examples.
        several: Whether a label may be a list or an array.

    Attributes:
        names: The names of the examples, such as `example 12` and `validation example 3`.
        sample: Positions of a few examples, over all sources.
        image: Field of the images; None if the examples are arrays.
        inputs: Fields of the arrays by name; empty for images.
        label: Field of the labels; None if the labels are known otherwise.
    """

    def __init__(self, sources: Sequence[Any], name: str, *, several: bool = False) -> None:
        self._sources, self._several = sources, several
        lengths = [len(source) for source in sources]
        self._starts = np.cumsum([0, *lengths])
        prefixes = ("", "validation ")[: len(sources)]
        self.names = [
            f"{prefix}{name} {index}"
            for prefix, length in zip(prefixes, lengths, strict=True)
            for index in range(length)
        ]
        self.sample = np.unique(np.linspace(0, len(self) - 1, SAMPLE).astype(int)).tolist()
        self.image: Field | None = None
        self.inputs: dict[str, Field] = {}
        self.label: Field | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def item(self, index: int) -> Any:
        """Returns an example as its source gives it.

        Raises:
            BadImageError: If the source raises an error, or gives None. The message names the example.
        """
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        try:
            item = read_again(lambda at: self._sources[part][at], int(index - self._starts[part]))
        except Exception as error:  # Sources are the code of users.
            raise BadImageError(
                f"{self.names[index]}: reading it raises {type(error).__name__}: {error}"
            ) from error
        if item is None:
            raise BadImageError(
                f"{self.names[index]} is None, as are those that `filter` of grain leaves out"
            )
        return item

    @functools.cached_property
    def first(self) -> tuple[int, Any]:
        """Position of the first example of the sample that can be read, and the example.

        Raises:
            BadImageError: If none can be read.
        """
        for index in self.sample[:-1]:
            try:
                return index, self.item(index)
            except BadImageError:
                continue
        return self.sample[-1], self.item(self.sample[-1])

    @functools.cached_property
    def specs(self) -> dict[str, InputSpec] | None:
        """Shape and dtype of each array of an example; None for images."""
        if not self.inputs:
            return None
        arrays = {name: self._input(self.first[1], name, self.first[0]) for name in self.inputs}
        return {name: InputSpec(array.shape, array.dtype) for name, array in arrays.items()}

    def read(self, index: int) -> Content:
        """Returns an image, or the arrays of an example, as `ImageDataset.read` does.

        Raises:
            BadImageError: If it cannot be read. The message names the example.
        """
        return self.content_of(self.item(index), index)

    def content_of(self, item: Any, index: int) -> Content:
        """Returns the content of an example that was read; see `read`."""
        name = self.names[index]
        if self.specs is None:
            assert self.image is not None
            value = self._part(item, self.image, index)
            try:
                return read_again(lambda _: image_content(value, name), index)
            except BadImageError:
                raise
            except OSError as error:
                raise BadImageError(f"{name}: cannot be read ({error})") from error
            except Exception as error:  # Values are of any type, such as a tensor on a device.
                raise BadImageError(f"{name}: {type(error).__name__}: {error}") from error
        first = self.names[self.first[0]]
        try:
            return {
                key: check_input(self._input(item, key, index), spec, key, name, first)
                for key, spec in self.specs.items()
            }
        except BadImageError:
            raise
        except ValueError as error:
            raise BadImageError(str(error)) from None

    def label_of(self, item: Any, index: int) -> Any:
        """Returns the label of an example that was read, as a Python value.

        Raises:
            BadImageError: If it has none.
        """
        assert self.label is not None
        value = self._part(item, self.label, index)
        try:
            return label_value(value, several=self._several)
        except ValueError as error:
            raise BadImageError(f"{self.names[index]}: {error}") from None

    def _input(self, item: Any, name: str, index: int) -> np.ndarray:
        try:
            return as_input(self._part(item, self.inputs[name], index), f"{self.names[index]}: {name!r}")
        except BadImageError:
            raise
        except ValueError as error:
            raise BadImageError(str(error)) from None

    def _part(self, item: Any, field: Field, index: int) -> Any:
        """Returns a part of an example; an error names the example."""
        try:
            return part_of(item, field)
        except Exception as error:  # The field may be a function of the user.
            text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise BadImageError(f"{self.names[index]}: {text}") from error


def content_hash(content: Content) -> bytes:
    """Returns a hash of the content of an example."""
    if isinstance(content, Mapping):
        parts = b"".join(name.encode() + b"\0" + content_hash(array) for name, array in content.items())
        return hashlib.sha256(parts).digest()
    if isinstance(content, np.ndarray):
        shape = f"{content.dtype} {content.shape} ".encode()
        return hashlib.sha256(shape + np.ascontiguousarray(content).tobytes()).digest()
    return hashlib.sha256(content).digest()
