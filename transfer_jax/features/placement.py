"""Placement of cached features during a phase: on disk, in memory, or on the device."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from transfer_jax.features.feature_cache import FeatureCache

Tier = Literal["disk", "memory", "device"]

_FRACTION = 0.5
"""Fraction of free memory for features; the rest is for parameters, activations and other processes."""


def choose_tier(bytes: int, *, device: bool = True) -> Tier:
    """Returns the fastest place with room for features of a size.

    Features may use half of the free memory of the device (GPU or TPU), or of the host.

    Args:
        bytes: Size of the features, in bytes.
        device: False rules out the device.

    Returns:
        `device`, `memory` or `disk`.
    """
    first = jax.local_devices()[0]
    stats = (first.memory_stats() or {}) if device and first.platform != "cpu" else {}
    if bytes <= _FRACTION * (stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)):
        return "device"
    return "memory" if bytes <= _FRACTION * psutil.virtual_memory().available else "disk"


class DeviceFeatureCache:
    """A copy of cached features on the device.

    Args:
        cache: The features. They are copied shard by shard.
    """

    def __init__(self, cache: FeatureCache) -> None:
        step = cache.manifest.shard_rows
        self._row_format = cache.manifest.row_format
        shapes = self._row_format.column_shapes(len(cache))
        self._columns = jax.tree.map(
            lambda column: jnp.zeros(column.shape, jax.dtypes.canonicalize_dtype(column.dtype)), shapes
        )
        for first in range(0, len(cache), step):
            part = cache.columns(np.arange(first, min(first + step, len(cache))))
            self._columns = jax.tree.map(
                lambda whole, rows, first=first: _put(whole, rows, first), self._columns, part
            )

    def columns(self, rows: np.ndarray) -> Mapping[str, Any]:
        """Returns some rows as they are stored; see `RowFormat.columns`.

        Args:
            rows: int `(n,)`, positions of the rows.
        """
        return _take(self._columns, rows)

    def gather(self, rows: np.ndarray) -> dict[str, jax.Array]:
        """Returns some examples; see `FeatureCache.gather`.

        Args:
            rows: int `(n,)`, positions of the examples.
        """
        return self._row_format.decode(self.columns(rows))


@jax.jit(donate_argnums=0)
def _put(whole: jax.Array, part: jax.Array, first: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(whole, part, first, axis=0)


@jax.jit
def _take(columns: Mapping[str, Any], rows: jax.Array) -> Mapping[str, Any]:
    return jax.tree.map(lambda column: jnp.take(column, rows, axis=0), columns)
