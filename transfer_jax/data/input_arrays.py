"""Arrays of examples that are not images: their shapes and dtypes, and the check of each example."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_NARROW = {"int64": "int32", "uint64": "uint32", "float64": "float32", "complex128": "complex64"}
"""The dtypes that JAX makes of wide ones without x64."""


class InputSpec(NamedTuple):
    """The shape and the dtype of an array of one example.

    Attributes:
        shape: The shape, without an axis for the batch.
        dtype: The dtype; integers and floating-point numbers have at most 32 bits.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def as_input(value: Any, name: str) -> np.ndarray:
    """Returns a value of an example as an array of a dtype that JAX has.

    64-bit values become 32-bit ones, as in JAX.

    Args:
        value: A number, a list, an array or a tensor.
        name: Name of the value and its example, for messages.

    Raises:
        ValueError: If the value is no array of numbers or booleans, or is a whole number beyond 32 bits.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # Lists of several lengths.
        raise ValueError(f"{name} has rows of several lengths; pad them to one length") from None
    except Exception as error:  # A tensor on a device, for example.
        raise ValueError(f"{name} is no array: {type(error).__name__}: {error}") from error
    if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
        kind = "text" if array.dtype.kind in "US" else type(value).__name__
        advice = "turn it into numbers first, with a tokenizer for example"
        raise ValueError(f"{name} must be an array of numbers or booleans, got {kind}; {advice}")
    narrow = _NARROW.get(array.dtype.name)
    if narrow is None:
        return array
    converted = array.astype(narrow)
    if array.dtype.kind in "iu" and not np.array_equal(converted, array):
        raise ValueError(f"{name} has values beyond {narrow}: {array.min()}..{array.max()}")
    return converted


def check_input(array: np.ndarray, spec: InputSpec, key: str, example: str, first: str) -> np.ndarray:
    """Returns an array of an example in the dtype of the first example's.

    Args:
        array: The array.
        spec: Shape and dtype of the first example's array.
        key: Name of the array.
        example: Name of the example.
        first: Name of the first example.

    Raises:
        ValueError: If the shape differs, or the dtype is of another kind.
    """
    if array.shape != spec.shape:
        raise ValueError(
            f"{example}: {key!r} has shape {array.shape}, but in {first} it has {spec.shape}; all examples "
            "need the same shape: pad or truncate them"
        )
    if array.dtype != spec.dtype:
        if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
            raise ValueError(
                f"{example}: {key!r} has dtype {array.dtype}, but in {first} it has {spec.dtype}; "
                "convert all examples to one dtype"
            )
        return array.astype(spec.dtype)
    return array


def stack_inputs(examples: list[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the arrays of several examples by name, with the examples on axis 0."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def blank_inputs(specs: Mapping[str, InputSpec]) -> dict[str, np.ndarray]:
    """Returns zeros in place of the arrays of an example."""
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
