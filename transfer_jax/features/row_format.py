"""The format of stored features: as computed, or with a reduced precision."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = ("float32", "bfloat16", "float16", "int8")
"""The dtypes in which features can be stored."""


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """The format of the rows of a feature cache.

    With `int8`, the `scale` of each image and channel is the largest magnitude over its pixels divided by
    127, and values are rounded to multiples of it; pooled features have one scale for each image. The shards
    of int8 are structured arrays with the fields `values` and `scale`; all others are plain arrays.

    Attributes:
        row_shape: Shape of one row, without the batch axis.
        dtype: One of `DTYPES`.
    """

    row_shape: tuple[int, ...]
    dtype: str

    @property
    def row(self) -> np.dtype:
        """The NumPy dtype of one row."""
        if self.dtype != "int8":
            return np.dtype((jnp.dtype(self.dtype), self.row_shape))
        channels = self.row_shape[-1] if len(self.row_shape) > 1 else 1
        return np.dtype([("scale", np.float32, (channels,)), ("values", np.int8, self.row_shape)])

    @property
    def row_bytes(self) -> int:
        """Size of one row, in bytes."""
        return self.row.itemsize

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Encodes features `(rows, *row_shape)` in this format.

        Returns:
            `(rows,)` structured values for int8, otherwise `(rows, *row_shape)`.

        Raises:
            ValueError: If the features are out of the range of float16.
        """
        if self.dtype != "int8":
            with np.errstate(over="ignore"):
                encoded = features.astype(self.dtype)
            if self.dtype == "float16" and not np.isfinite(encoded).all():
                largest = np.abs(features.astype(np.float32)).max()
                raise ValueError(
                    f"features up to {largest:.3g} are out of the range of float16, which ends at 65504; "
                    "choose bfloat16 or int8"
                )
            return encoded
        features = features.astype(np.float32)
        pixels = tuple(range(1, features.ndim - 1)) or (1,)
        scale = np.abs(features).max(axis=pixels, keepdims=True) / 127
        rows = np.empty(len(features), self.row)
        rows["values"] = np.rint(features / np.where(scale > 0, scale, 1))
        rows["scale"] = scale.reshape(len(features), -1)
        return rows

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the arrays of encoded rows by name: `features`, and `scale` for int8."""
        if self.dtype != "int8":
            return {"features": rows}
        return {"features": rows["values"], "scale": rows["scale"]}

    def column_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes and dtypes of `columns` for a number of rows."""
        columns = self.columns(np.zeros(0, self.row))
        return {
            name: jax.ShapeDtypeStruct((count, *column.shape[1:]), column.dtype)
            for name, column in columns.items()
        }

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `encode`, up to rounding; returns float32 for int8."""
        columns = self.columns(rows)
        return decode(**columns) if "scale" in columns else columns["features"]


def decode(features, scale):
    """Decodes int8 features to float32.

    Args:
        features: int8 `(rows, *row_shape)`, a NumPy or JAX array.
        scale: float32 `(rows, channels)`, or `(rows, 1)` for pooled features.
    """
    shape = (len(features), *(1,) * (features.ndim - 2), scale.shape[-1])
    return features.astype(np.float32) * scale.reshape(shape)


def squared_error(features: np.ndarray, stored: np.ndarray) -> tuple[float, float]:
    """Returns the sum of squared errors of stored features, and the sum of squared features.

    Args:
        features: The computed features.
        stored: The same features, encoded and decoded.
    """
    exact, decoded = (x.astype(np.float64).ravel() for x in (features, stored))
    return float(np.dot(decoded - exact, decoded - exact)), float(np.dot(exact, exact))


def relative_error(sums: list[tuple[float, float]]) -> float:
    """Returns the root mean square error as a fraction of the root mean square of the features.

    Args:
        sums: Results of `squared_error`, one for each part of the features.
    """
    error, total = (math.fsum(each) for each in zip(*sums, strict=True)) if sums else (0.0, 0.0)
    return math.sqrt(error / total) if total else 0.0
