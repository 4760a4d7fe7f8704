"""The format of stored features: as computed, or with a reduced precision."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = ("float32", "bfloat16", "float16", "int8")
"""The dtypes in which features can be stored."""


@dataclasses.dataclass(frozen=True)
class ArrayFormat:
    """The format of one array of a row.

    With `int8`, the `scale` of each example and channel is the largest magnitude over its pixels divided by
    127, and values are rounded to multiples of it; arrays with one axis have one scale for each example.

    Attributes:
        shape: Shape for one example.
        stored: The dtype on disk: one of `DTYPES` for features, or any other dtype of NumPy or JAX.
        computed: The dtype that `decode` returns; None for the stored dtype, or float32 for int8. Integers
            that are computed as int8 have no scale.
    """

    shape: tuple[int, ...]
    stored: str
    computed: str | None = None

    @property
    def scaled(self) -> bool:
        """True for int8 values with a scale."""
        return self.stored == "int8" and self.computed != "int8"

    @functools.cached_property
    def decoded(self) -> np.dtype:
        """The dtype that `decode` returns."""
        return jnp.dtype(self.computed or ("float32" if self.scaled else self.stored))

    @property
    def row(self) -> np.dtype:
        """The NumPy dtype of the array of one example."""
        if not self.scaled:
            return np.dtype((jnp.dtype(self.stored), self.shape))
        channels = self.shape[-1] if len(self.shape) > 1 else 1
        return np.dtype([("scale", np.float32, (channels,)), ("values", np.int8, self.shape)])

    @property
    def row_bytes(self) -> int:
        """Size for one example, in bytes."""
        return self.row.itemsize

    def encode(self, array: np.ndarray) -> np.ndarray:
        """Encodes an array `(rows, *shape)` in this format.

        Returns:
            `(rows,)` structured values if they are scaled, otherwise `(rows, *shape)`.

        Raises:
            ValueError: If the values are out of the range of float16.
        """
        if not self.scaled:
            with np.errstate(over="ignore"):
                encoded = array.astype(jnp.dtype(self.stored))
            if self.stored == "float16" and array.dtype != encoded.dtype and not np.isfinite(encoded).all():
                largest = np.abs(array.astype(np.float32)).max()
                raise ValueError(
                    f"features up to {largest:.3g} are out of the range of float16, which ends at 65504; "
                    "choose bfloat16 or int8"
                )
            return encoded
        array = array.astype(np.float32)
        pixels = tuple(range(1, array.ndim - 1)) or (1,)
        scale = np.abs(array).max(axis=pixels, keepdims=True) / 127
        rows = np.empty(len(array), self.row)
        rows["values"] = np.rint(array / np.where(scale > 0, scale, 1))
        rows["scale"] = scale.reshape(len(array), -1)
        return rows


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """The format of the rows of a feature cache: one or several named arrays for each example.

    The shards of several arrays are structured arrays with a field for each; those of a single array of the
    name `features` are plain arrays. Values of int8 with their `scale` are structured.

    Attributes:
        arrays: The format of each array by name.
    """

    arrays: Mapping[str, ArrayFormat]

    @classmethod
    def single(cls, shape: tuple[int, ...], stored: str) -> "RowFormat":
        """Returns the format of rows with one array, `features`."""
        return cls({"features": ArrayFormat(shape, stored)})

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, Any], stored: str) -> "RowFormat":
        """Returns the format of arrays of some shapes and dtypes.

        Args:
            shapes: Shape and dtype of each array for one example, by name.
            stored: The dtype in which floating-point arrays are stored; all others are stored as they are.
        """
        floating = {name for name, each in shapes.items() if jnp.issubdtype(each.dtype, jnp.floating)}
        return cls(
            {
                name: ArrayFormat(tuple(each.shape), stored if name in floating else str(each.dtype))
                for name, each in shapes.items()
            }
        )

    @property
    def is_single(self) -> bool:
        """True for rows with one array of the name `features`."""
        return [*self.arrays] == ["features"]

    @property
    def row(self) -> np.dtype:
        """The NumPy dtype of one row."""
        if self.is_single:
            return self.arrays["features"].row
        return np.dtype([(name, array.row) for name, array in self.arrays.items()])

    @property
    def row_bytes(self) -> int:
        """Size of one row, in bytes."""
        return self.row.itemsize

    def encode(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Encodes arrays by name, each `(rows, *shape)`, in this format.

        Returns:
            `(rows,)` structured values for several arrays; see `ArrayFormat.encode` for a single one.

        Raises:
            ValueError: If the values are out of the range of float16.
        """
        if self.is_single:
            return self.arrays["features"].encode(arrays["features"])
        encoded = {name: array.encode(arrays[name]) for name, array in self.arrays.items()}
        rows = np.empty(len(next(iter(encoded.values()))), self.row)
        for name, values in encoded.items():
            rows[name] = values
        return rows

    def columns(self, rows: np.ndarray) -> dict[str, Any]:
        """Returns the arrays of encoded rows, as views: `features`, and `scale` if there are scales.

        Each of them is an array if the rows have a single one, otherwise a dictionary by name.
        """
        fields = {name: rows if self.is_single else rows[name] for name in self.arrays}
        scaled = {name for name, array in self.arrays.items() if array.scaled}
        values = {name: each["values"] if name in scaled else each for name, each in fields.items()}
        columns = {"features": values, "scale": {name: fields[name]["scale"] for name in scaled}}
        return {
            name: column["features"] if self.is_single else column
            for name, column in columns.items()
            if column
        }

    def column_shapes(self, count: int) -> dict[str, Any]:
        """Returns the shapes and dtypes of `columns` for a number of rows."""
        return jax.tree.map(
            lambda column: jax.ShapeDtypeStruct((count, *column.shape[1:]), column.dtype),
            self.columns(np.zeros(0, self.row)),
        )

    def decode(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arrays by name in the dtypes in which they were computed, from their `columns`.

        They are those that `encode` received, up to rounding.
        """
        decoded = decode(**columns)
        arrays = {"features": decoded} if self.is_single else decoded
        return {name: _cast(arrays[name], array.decoded) for name, array in self.arrays.items()}

    def to_json(self) -> dict[str, Any]:
        """Returns the fields that describe the format in a manifest."""
        if self.is_single and self.arrays["features"].computed is None:
            array = self.arrays["features"]
            return {"row_shape": array.shape, "dtype": array.stored}
        return {"arrays": [{"name": name, **dataclasses.asdict(each)} for name, each in self.arrays.items()]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RowFormat":
        """Returns the format that `to_json` described."""
        if "arrays" not in content:
            return cls.single(tuple(content["row_shape"]), content["dtype"])
        return cls(
            {
                each["name"]: ArrayFormat(tuple(each["shape"]), each["stored"], each["computed"])
                for each in content["arrays"]
            }
        )


def _cast(array: Any, dtype: np.dtype) -> Any:
    """Returns an array in a dtype, on the device in the dtype that JAX has in place of a wide one."""
    on_device = isinstance(array, jax.Array)
    return array.astype(jax.dtypes.canonicalize_dtype(dtype) if on_device else dtype, copy=False)


def decode(features: Any, scale: Any = None) -> Any:
    """Decodes features as they are stored: int8 values with a scale to float32; others stay as they are.

    Args:
        features: An array `(rows, *shape)` of NumPy or JAX, or several by name.
        scale: float32 `(rows, channels)`, or `(rows, 1)` for arrays with one axis; None if the features have
            none. For several arrays, the scales of those that have one, by name.
    """
    if isinstance(features, Mapping):
        return {name: decode(each, (scale or {}).get(name)) for name, each in features.items()}
    if scale is None:
        return features
    shape = (len(features), *(1,) * (features.ndim - 2), scale.shape[-1])
    return features.astype(np.float32) * scale.reshape(shape)


def squared_error(features: np.ndarray, stored: np.ndarray) -> tuple[float, float]:
    """Returns the sum of squared errors of stored features, and the sum of squared features.

    Args:
        features: The computed features.
        stored: The same features, encoded and decoded.
    """
    exact = features.astype(np.float64)
    difference = stored.astype(np.float64) - exact
    # The threads of BLAS, which `np.dot` starts, would wait for each other in every batch.
    return float(np.square(difference, out=difference).sum()), float(np.square(exact, out=exact).sum())


def relative_error(sums: list[tuple[float, float]]) -> float:
    """Returns the root mean square error as a fraction of the root mean square of the features.

    Args:
        sums: Results of `squared_error`, one for each part of the features.
    """
    error, total = (math.fsum(each) for each in zip(*sums, strict=True)) if sums else (0.0, 0.0)
    return math.sqrt(error / total) if total else 0.0
