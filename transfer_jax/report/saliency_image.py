"""An image beside itself under a map of what mattered in it."""

from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from scipy.ndimage import zoom

from transfer_jax.storage.atomic_write import write_atomically

_COLOURS = "inferno"
_LEAST_PIXELS = 192
"""Smaller images are drawn larger, in whole pixels."""
_QUALITY = 88


def write_overlay(path: Path, image: np.ndarray, heat: np.ndarray) -> None:
    """Writes a JPEG: the image, and to its right the image in gray under the coloured map.

    Args:
        path: The file.
        image: uint8 `(height, width, 3)`.
        heat: `(rows, columns)` in 0..1; it is spread over the image, smoothly.
    """
    height, width = image.shape[:2]
    scale = max(1, -(-_LEAST_PIXELS // min(height, width)))
    large = image.repeat(scale, 0).repeat(scale, 1)
    sides = [length * scale / cells for length, cells in zip((height, width), heat.shape, strict=True)]
    spread = np.asarray(zoom(heat.astype(np.float64), sides, order=1, mode="nearest", grid_mode=True))
    spread = spread.clip(0, 1)
    gray = large.mean(-1, keepdims=True) / 255
    share = 0.15 + 0.6 * spread[..., None]
    drawn = (1 - share) * gray + share * colormaps[_COLOURS](spread)[..., :3]
    both = np.concatenate([large, (255 * drawn).astype(np.uint8)], axis=1)
    options: dict[str, Any] = {"format": "jpeg", "pil_kwargs": {"quality": _QUALITY}}
    write_atomically(path, lambda file: imsave(cast(BinaryIO, file), both, **options))
