"""Near duplicates among images: copies that were resized, compressed anew, brightened, mirrored or turned.

An image is compared by a sketch: the lowest frequencies of a small gray version of it, as in the perceptual
hash of Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", but with all of
their values, not only the signs. What all images of a set have in common, such as the wires on every solar
cell, says nothing of which are alike; so sketches are whitened: the mean is taken off, and each direction in
which they vary counts relative to how much they do.

Candidates are neighbours in sorted lists of the signs, each list sorted by others of them (locality-sensitive
hashing by random directions, Charikar 2002, "Similarity estimation techniques from rounding algorithms"): the
work grows as n log n. Candidates are then compared in full.
"""

import numpy as np
import scipy.fft
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 16
"""A sketch has so many frequencies each way."""
ALIKE = 0.92
"""Cosine of two whitened sketches from which on images count as near duplicates."""
_TINT = 12.0
"""Levels of 255 that the mean colours of near duplicates may differ by, besides brightness."""
_FLAT = 1e-3
"""Deviation of the gray levels, of 1, below which an image is plain and like any other plain one."""
_LISTS, _REACH = 24, 6
"""Sorted lists, and neighbours in each that an image is compared with."""
_MOST_BITS = 56
"""Signs, of all, that candidates may differ in; at a cosine of `ALIKE` 33 are expected."""
_PRIOR_IMAGES = 100.0
"""Weight of what is usual in photographs against the images at hand, of which there may be few."""
_FLOOR = 0.03
"""Share of the mean variance that every direction has at least, so that noise counts for little."""


def sketch(thumbnail: np.ndarray) -> np.ndarray:
    """The sketch of an image, and its tint.

    Args:
        thumbnail: uint8 `(side, side, 3)`, at least `SIDE` pixels wide.

    Returns:
        float32 `(SIDE * SIDE + 2,)`: frequencies of the gray image, the mean left out, whose squares add up
        to the mean square of its gray levels on the scale 0..1; then its tint, on that scale.
    """
    red, green, blue = np.moveaxis(thumbnail.astype(np.float32) / 255, -1, 0)
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    waves = np.asarray(scipy.fft.dctn(gray, norm="ortho"))[:SIDE, :SIDE] / len(gray)
    waves[0, 0] = 0
    tint = (0.564 * (blue - gray).mean(), 0.713 * (red - gray).mean())
    return np.concatenate((waves.ravel(), tint)).astype(np.float32)


def near_duplicates(sketches: np.ndarray) -> np.ndarray:
    """Pairs of images that are alike, mirrored and turned by right angles too.

    Of many copies of one image not every pair is listed, but they hang together.

    Args:
        sketches: float `(n, SIDE * SIDE + 2)`, as `sketch` gives them.

    Returns:
        int32 `(pairs, 2)`, positions with the smaller one first, sorted.
    """
    waves = sketches[:, :-2].astype(np.float32)
    norms = np.linalg.norm(waves, axis=1)
    shown = np.flatnonzero(norms > _FLAT)
    if len(shown) < 2:
        return np.zeros((0, 2), np.int32)
    waves = waves[shown] / norms[shown, None]
    mean, matrix = _whitening(waves)

    def seen(images: np.ndarray, way: int) -> np.ndarray:
        """Whitened sketches of images turned one way, of length 1."""
        found = (_turned(waves[images], way) - mean) @ matrix
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    everyone = np.arange(len(shown))
    signs = [np.packbits(seen(everyone, way) > 0, axis=1) for way in range(8)]
    rows = _candidates(np.concatenate(signs), len(shown))
    first, (way, second) = rows[:, 0], np.divmod(rows[:, 1], len(shown))
    cosine = np.zeros(len(rows), np.float32)
    for each in range(8):
        chosen = way == each
        cosine[chosen] = np.einsum("ij,ij->i", seen(first[chosen], 0), seen(second[chosen], each))
    tints = 255 * sketches[shown, -2:].astype(np.float32)
    same_tint = (np.abs(tints[first] - tints[second]) < _TINT).all(axis=1)
    pairs = np.stack((shown[first], shown[second]), axis=1)[(cosine >= ALIKE) & same_tint]
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int32)


def groups_of(pairs: np.ndarray, count: int) -> np.ndarray:
    """The group of each of `count` images, int32: images that pairs join are in one."""
    ones = np.ones(len(pairs), np.int8)
    joined = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(joined, directed=False)[1].astype(np.int32)


def _whitening(waves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean sketch, and the matrix that whitens what is left, into directions drawn at random."""
    count, size = waves.shape
    prior = 1 / (1 + np.hypot(*np.indices((SIDE, SIDE))).ravel())  # Photographs fall off with the frequency.
    prior[0] = 0  # The mean gray level, which is left out.
    prior /= np.linalg.norm(prior)
    mean = waves.sum(axis=0) / (count + _PRIOR_IMAGES)
    left = waves - mean
    covariance = (left.T @ left + _PRIOR_IMAGES * np.diag(prior**2)) / (count + _PRIOR_IMAGES)
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, 0) + _FLOOR * np.trace(covariance) / size
    drawn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))
    return mean.astype(np.float32), (directions / np.sqrt(variances) @ drawn).astype(np.float32)


def _turned(waves: np.ndarray, way: int) -> np.ndarray:
    """Sketches of the images seen one of eight ways: bit 0 mirrors sideways, 1 upside down, 2 transposes."""
    found = waves.reshape(-1, SIDE, SIDE)
    odd = np.where(np.arange(SIDE) % 2, -1, 1).astype(waves.dtype)
    if way & 1:
        found = found * odd
    if way & 2:
        found = found * odd[:, None]
    if way & 4:
        found = found.swapaxes(1, 2)
    return found.reshape(-1, SIDE * SIDE)


def _candidates(signs: np.ndarray, count: int) -> np.ndarray:
    """Pairs of rows with similar signs, of two images; the first row is of an image as it is.

    Args:
        signs: uint8 `(8 * count, bytes)`, bits of all images seen eight ways.
        count: Number of images.
    """
    rng = np.random.default_rng(0)
    bits = 8 * signs.shape[1]
    words = np.ascontiguousarray(signs).view(np.uint64)
    unpacked = np.unpackbits(signs, axis=1)
    found = []
    for _ in range(_LISTS):
        chosen = np.ascontiguousarray(unpacked[:, rng.permutation(bits)[:64]])
        key = np.packbits(chosen, axis=1).view(">u8").ravel()
        order = np.argsort(key, kind="stable")
        for reach in range(1, _REACH + 1):
            low, high = order[:-reach], order[reach:]
            low, high = np.minimum(low, high), np.maximum(low, high)
            meant = (low < count) & (low != high % count)
            low, high = low[meant], high[meant]
            differing = np.bitwise_count(words[low] ^ words[high]).sum(axis=1)
            near = differing <= _MOST_BITS
            found.append(np.stack((low[near], high[near]), axis=1))
    return np.unique(np.concatenate(found), axis=0)
