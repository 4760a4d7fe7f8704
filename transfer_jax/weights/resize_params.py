"""Conversion of parameters to another image size or another number of input channels."""

import math

import numpy as np

from transfer_jax.models.family import TIMM_RESAMPLING, Resampling


def resize_param(
    path: str, array: np.ndarray, shape: tuple[int, ...], resampling: Resampling = TIMM_RESAMPLING
) -> tuple[np.ndarray, str] | None:
    """Returns the array in another shape and a text that describes the change, or None if it is not possible.

    Position embeddings and relative position biases are resampled between square grids. The first kernel is
    summed over its three channels for one channel, and repeated and scaled for other numbers, as in timm. A
    gray image then gives the same outputs as before.

    Args:
        path: Path of the parameter.
        array: The array of the file, in the layout of this package.
        shape: The shape of the network's parameter.
        resampling: The resampling of positions; the default is that of timm.
    """
    if path.endswith("/pos_embed") and array.ndim == 3 and array.shape[2] == shape[2]:
        return _positions(path, array, shape, resampling)
    if path.endswith("/relative_position_bias_table") and array.ndim == 2 and array.shape[1] == shape[1]:
        return _relative_positions(path, array, shape[0], resampling)
    if path.endswith("/relative_position_bias_table") and array.ndim == 3 and len(array) == shape[0]:
        found = _resample(path, array.reshape(len(array), -1).T, shape[1] * shape[2], resampling)
        return found and (found[0].T.reshape(shape), found[1])
    same_but_input = array.ndim == 4 and array.shape[:2] + array.shape[3:] == shape[:2] + shape[3:]
    if path.endswith("/kernel") and same_but_input and array.shape[2] == 3:
        return _channels(path, array, shape[2])
    return None


def _positions(
    path: str, array: np.ndarray, shape: tuple[int, ...], resampling: Resampling
) -> tuple[np.ndarray, str] | None:
    before, after = _grid(array.shape[1]), _grid(shape[1] - 1)
    if before and after:  # big_vision's class token has no position, which equals a position of zeros
        zeros = np.zeros_like(array[:, :1])
        found = (
            (array, "") if before == after else _positions(path, array, (1, after**2, shape[2]), resampling)
        )
        assert found is not None
        done = found[1] or path
        return np.concatenate([zeros, found[0]], axis=1), f"{done}, with zeros for the class token"
    for tokens in range(6):
        if found := _resample(path, array[0, tokens:], shape[1] - tokens, resampling):
            return np.concatenate([array[:, :tokens], found[0][None]], axis=1), found[1]
    return None


def _relative_positions(
    path: str, array: np.ndarray, count: int, resampling: Resampling
) -> tuple[np.ndarray, str] | None:
    """Resamples biases of relative positions; BEiT's last three, of the class token, are kept."""
    own = 3 if _grid(count - 3) and _grid(len(array) - 3) else 0
    found = _resample(path, array[: len(array) - own], count - own, resampling)
    return found and (np.concatenate([found[0], array[len(array) - own :]]), found[1])


def _resample(
    path: str, array: np.ndarray, count: int, resampling: Resampling
) -> tuple[np.ndarray, str] | None:
    """Resamples an array `(positions, channels)` between square grids; returns None if one is not square."""
    old, new = _grid(len(array)), _grid(count)
    if not (old and new):
        return None
    weights = (_averaging if resampling.antialias else _nearest)(old, new, old / (new + resampling.offset))
    grid = array.reshape(old, old, -1).astype(np.float64)
    grid = np.einsum("ih,jw,hwc->ijc", weights, weights, grid).reshape(count, -1)
    return grid.astype(array.dtype), f"{path} resampled from {old}x{old} to {new}x{new}"


def _grid(count: int) -> int:
    """Returns the side of a square grid of `count` patches; 0 if `count` is not a square."""
    side = math.isqrt(max(count, 0))
    return side if side**2 == count else 0


def _channels(path: str, array: np.ndarray, channels: int) -> tuple[np.ndarray, str]:
    if channels == 1:
        return array.sum(axis=2, keepdims=True), f"{path} summed over its 3 channels"
    repeated = array[:, :, np.arange(channels) % 3] * np.float32(3 / channels)
    return repeated.astype(array.dtype), f"{path} repeated from 3 to {channels} channels"


def _averaging(old: int, new: int, step: float) -> np.ndarray:
    """Returns weights `(new, old)` of a bicubic resampling with antialiasing and without padding."""
    stretch = max(step, 1.0)
    centers = (np.arange(new)[:, None] + 0.5) * step
    weights = _cubic(np.abs(np.arange(old)[None] + 0.5 - centers) / stretch, -0.5)
    return weights / weights.sum(axis=1, keepdims=True)


def _nearest(old: int, new: int, step: float) -> np.ndarray:
    """Returns weights `(new, old)` of a bicubic resampling without antialiasing and with repeated borders."""
    centers = (np.arange(new) + 0.5) * step - 0.5
    weights = np.zeros((new, old))
    for offset in range(-1, 3):
        at = np.floor(centers).astype(int) + offset
        np.add.at(weights, (np.arange(new), at.clip(0, old - 1)), _cubic(np.abs(centers - at), -0.75))
    return weights


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Returns the cubic kernel of Keys (1981). PyTorch uses another `a` with antialiasing than without."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
