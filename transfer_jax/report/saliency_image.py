"""Saliency maps as images: the photograph next to the coloured map."""

from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from matplotlib import colormaps
from matplotlib.image import imsave
from scipy.ndimage import zoom

from transfer_jax.storage.atomic_write import write_atomically

_COLOURS = "inferno"
_MIN_PIXELS = 192
"""The smallest length of the shorter side; smaller images are enlarged by a whole factor."""
_JPEG_QUALITY = 88


def write_overlay(path: Path, image: np.ndarray, heat: np.ndarray) -> None:
    """Writes a JPEG with the image on the left, and a gray copy under the coloured saliency map on the right.

    Args:
        path: The file.
        image: The image, uint8 `(height, width, 3)`.
        heat: The saliency map with values from 0 to 1, `(rows, columns)`. It is interpolated to the size of
            the image.
    """
    height, width = image.shape[:2]
    scale = max(1, -(-_MIN_PIXELS // min(height, width)))
    large = image.repeat(scale, 0).repeat(scale, 1)
    factors = [length * scale / cells for length, cells in zip((height, width), heat.shape, strict=True)]
    heat = np.asarray(zoom(heat.astype(np.float64), factors, order=1, mode="nearest", grid_mode=True))
    heat = heat.clip(0, 1)
    gray = large.mean(-1, keepdims=True) / 255
    opacity = 0.15 + 0.6 * heat[..., None]
    drawn = (1 - opacity) * gray + opacity * colormaps[_COLOURS](heat)[..., :3]
    both = np.concatenate([large, (255 * drawn).astype(np.uint8)], axis=1)
    options: dict[str, Any] = {"format": "jpeg", "pil_kwargs": {"quality": _JPEG_QUALITY}}
    write_atomically(path, lambda file: imsave(cast(BinaryIO, file), both, **options))
