"""How features are written: as they were computed, or with fewer bits."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = ("float32", "bfloat16", "float16", "int8")


@dataclasses.dataclass(frozen=True)
class RowFormat:
    """The form of the rows of a cache.

    `int8` keeps, for each image and channel, the largest magnitude over its pixels as `scale`, and the values
    in 127 steps of it; pooled features have one scale an image. Its shards are structured arrays with the
    fields `values` and `scale`; all others are plain.

    Attributes:
        row_shape: Shape of one row.
        dtype: One of `DTYPES`.
    """

    row_shape: tuple[int, ...]
    dtype: str

    @property
    def row(self) -> np.dtype:
        """The NumPy dtype of a whole row."""
        if self.dtype != "int8":
            return np.dtype((jnp.dtype(self.dtype), self.row_shape))
        channels = self.row_shape[-1] if len(self.row_shape) > 1 else 1
        return np.dtype([("scale", np.float32, (channels,)), ("values", np.int8, self.row_shape)])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.row.itemsize

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Features `(rows, *row_shape)` in this form.

        Raises:
            ValueError: If float16 cannot hold them.
        """
        if self.dtype != "int8":
            with np.errstate(over="ignore"):
                encoded = features.astype(self.dtype)
            if self.dtype == "float16" and not np.isfinite(encoded).all():
                largest = np.abs(features.astype(np.float32)).max()
                raise ValueError(
                    f"features up to {largest:.3g} do not fit float16, which ends at 65504; "
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
        """Encoded rows as the arrays that a batch holds: `features`, and `scale` of int8."""
        if self.dtype != "int8":
            return {"features": rows}
        return {"features": rows["values"], "scale": rows["scale"]}

    def column_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of the columns of some rows."""
        columns = self.columns(np.zeros(0, self.row))
        return {
            name: jax.ShapeDtypeStruct((count, *column.shape[1:]), column.dtype)
            for name, column in columns.items()
        }

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """`encode` turned around; float32 from int8."""
        columns = self.columns(rows)
        return decode(**columns) if "scale" in columns else columns["features"]


def decode(features, scale):
    """Values from the columns of int8: NumPy arrays or those of JAX, to float32."""
    shape = (len(features), *(1,) * (features.ndim - 2), scale.shape[-1])
    return features.astype(np.float32) * scale.reshape(shape)


def squared_error(features: np.ndarray, stored: np.ndarray) -> tuple[float, float]:
    """The sum of squared differences of what is stored from what was computed, and that of the latter."""
    exact, found = (x.astype(np.float64).ravel() for x in (features, stored))
    return float(np.dot(found - exact, found - exact)), float(np.dot(exact, exact))


def relative_error(sums: list[tuple[float, float]]) -> float:
    """The root mean square error over all `squared_error`, as a share of the features' root mean square."""
    error, total = (math.fsum(each) for each in zip(*sums, strict=True)) if sums else (0.0, 0.0)
    return math.sqrt(error / total) if total else 0.0
