"""Fits arrays of a file to a network that was built for other images: their size, or their channels."""

import math

import numpy as np


def adapt(path: str, array: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, str] | None:
    """The array in the shape wanted, and what was done; None if this is not a matter of other images.

    Position embeddings are resampled between square grids; the first kernel is summed over the colours for
    one channel, and repeated and scaled for others, so that gray images give what they gave in colour. Both
    as timm does.

    Args:
        path: Path of the parameter.
        array: What the file holds, in our layout.
        shape: What the network wants.
    """
    if path.endswith("/pos_embed") and array.ndim == 3 and array.shape[2] == shape[2]:
        return _positions(path, array, shape)
    same_but_input = array.ndim == 4 and array.shape[:2] + array.shape[3:] == shape[:2] + shape[3:]
    if path.endswith("/kernel") and same_but_input and array.shape[2] == 3:
        return _channels(path, array, shape[2])
    return None


def _positions(path: str, array: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, str] | None:
    before, after = _grid(array.shape[1]), _grid(shape[1] - 1)
    if before and after:  # big_vision's class token has no position, which is one of zeros
        zeros = np.zeros_like(array[:, :1])
        found = (array, "") if before == after else _positions(path, array, (1, after**2, shape[2]))
        assert found is not None
        done = found[1] or path
        return np.concatenate([zeros, found[0]], axis=1), f"{done}, with zeros for the class token"
    for tokens in range(6):
        old, new = (_grid(count - tokens) for count in (array.shape[1], shape[1]))
        if old and new:
            grid = array[0, tokens:].reshape(old, old, -1).astype(np.float64)
            weights = _bicubic(old, new)
            grid = np.einsum("ih,jw,hwc->ijc", weights, weights, grid).reshape(1, new * new, -1)
            resampled = np.concatenate([array[:, :tokens], grid.astype(array.dtype)], axis=1)
            return resampled, f"{path} resampled from {old}x{old} to {new}x{new}"
    return None


def _grid(count: int) -> int:
    """The side of a square grid of so many patches; 0 if there is none."""
    side = math.isqrt(max(count, 0))
    return side if side**2 == count else 0


def _channels(path: str, array: np.ndarray, channels: int) -> tuple[np.ndarray, str]:
    if channels == 1:
        return array.sum(axis=2, keepdims=True), f"{path} summed over its 3 channels"
    repeated = array[:, :, np.arange(channels) % 3] * np.float32(3 / channels)
    return repeated.astype(array.dtype), f"{path} repeated from 3 to {channels} channels"


def _bicubic(old: int, new: int) -> np.ndarray:
    """Weights `(new, old)` of a bicubic resampling that averages where it shrinks (Keys 1981, a = -0.5)."""
    scale = old / new
    stretch = max(scale, 1.0)
    centers = (np.arange(new)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(old)[None] + 0.5 - centers) / stretch
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
