"""Near duplicates among images: copies that were resized, compressed again, brightened, flipped or rotated.

Images are compared by sketches: the lowest frequencies of a small gray version of an image, as in the
perceptual hash of Zauner 2010, "Implementation and benchmarking of perceptual image hash functions", but with
their values instead of their signs only. Structure that all images of a dataset have in common, such as the
wires on every solar cell, does not show which images are alike. Sketches are therefore whitened: the mean is
subtracted, and each direction is divided by its standard deviation.

Candidates are neighbours in lists that are sorted by random subsets of the signs (locality-sensitive hashing
by random directions, Charikar 2002, "Similarity estimation techniques from rounding algorithms"), so that the
work grows as n log n. The whitened sketches of candidates are then compared.
"""

import numpy as np

SIDE = 16
"""Number of frequencies of a sketch in each direction."""
ALIKE = 0.92
"""Smallest cosine of the whitened sketches of near duplicates."""
_TINT = 12.0
"""Largest difference of the mean colours of near duplicates apart from brightness, in levels of 255."""
_FLAT = 1e-3
"""Deviation of the gray levels, on the scale 0..1, below which an image is plain and is not compared."""
_LISTS, _REACH = 24, 6
"""Number of sorted lists, and of neighbours in each list that an image is compared with."""
_MOST_BITS = 56
"""Largest number of signs in which candidates differ; at a cosine of `ALIKE` 33 are expected."""
_PRIOR_IMAGES = 100.0
"""Weight of the statistics of photographs relative to those of the dataset, which may be small."""
_FLOOR = 0.03
"""Smallest variance of a direction, as a fraction of the mean variance, so that noise has little weight."""


def sketch(thumbnail: np.ndarray) -> np.ndarray:
    """Returns the sketch of an image, and its tint.

    Args:
        thumbnail: uint8 `(side, side, 3)`, at least `SIDE` pixels wide.

    Returns:
        float32 `(SIDE * SIDE + 2,)`: the frequencies of the gray image without its mean, then two values of
        its tint on the scale 0..1. The squares of all frequencies add up to the mean square of the
        gray levels on that scale.
    """
    from scipy.fft import dctn  # SciPy takes a while to import.

    red, green, blue = np.moveaxis(thumbnail.astype(np.float32) / 255, -1, 0)
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    waves = np.asarray(dctn(gray, norm="ortho"))[:SIDE, :SIDE] / len(gray)
    waves[0, 0] = 0
    tint = (0.564 * (blue - gray).mean(), 0.713 * (red - gray).mean())
    return np.concatenate((waves.ravel(), tint)).astype(np.float32)


def near_duplicates(sketches: np.ndarray) -> np.ndarray:
    """Returns pairs of images that are near duplicates, also if flipped or rotated by right angles.

    Not every pair of many copies of one image is listed, but the listed pairs connect all of them; see
    `connected_groups`.

    Args:
        sketches: float `(n, SIDE * SIDE + 2)`, one row of `sketch` for each image.

    Returns:
        int32 `(pairs, 2)`, positions of images with the smaller one first, sorted.
    """
    waves = sketches[:, :-2].astype(np.float32)
    norms = np.linalg.norm(waves, axis=1)
    compared = np.flatnonzero(norms > _FLAT)
    if len(compared) < 2:
        return np.zeros((0, 2), np.int32)
    waves = waves[compared] / norms[compared, None]
    mean, matrix = _whitening(waves)

    def whitened(images: np.ndarray, way: int) -> np.ndarray:
        """Returns whitened sketches of length 1 of images that are flipped or rotated in one way."""
        result = (_transformed(waves[images], way) - mean) @ matrix
        return result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-9)

    all_images = np.arange(len(compared))
    signs = [np.packbits(whitened(all_images, way) > 0, axis=1) for way in range(8)]
    rows = _candidates(np.concatenate(signs), len(compared))
    first, (way, second) = rows[:, 0], np.divmod(rows[:, 1], len(compared))
    cosine = np.zeros(len(rows), np.float32)
    for each in range(8):
        chosen = way == each
        cosine[chosen] = np.einsum("ij,ij->i", whitened(first[chosen], 0), whitened(second[chosen], each))
    tints = 255 * sketches[compared, -2:].astype(np.float32)
    same_tint = (np.abs(tints[first] - tints[second]) < _TINT).all(axis=1)
    pairs = np.stack((compared[first], compared[second]), axis=1)[(cosine >= ALIKE) & same_tint]
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int32)


def connected_groups(pairs: np.ndarray, count: int) -> np.ndarray:
    """Returns the number of the group of each image; images that are connected by pairs are in one group.

    Args:
        pairs: int `(pairs, 2)`, positions of images.
        count: Number of images.

    Returns:
        int32 `(count,)`.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), np.int8)
    joined = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(joined, directed=False)[1].astype(np.int32)


def _whitening(waves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean sketch, and the matrix that whitens centred sketches and rotates them at random."""
    count, size = waves.shape
    # The amplitude of photographs decreases with the frequency.
    prior = 1 / (1 + np.hypot(*np.indices((SIDE, SIDE))).ravel())
    prior[0] = 0  # The mean gray level, which is not part of a sketch.
    prior /= np.linalg.norm(prior)
    mean = waves.sum(axis=0) / (count + _PRIOR_IMAGES)
    centred = waves - mean
    covariance = (centred.T @ centred + _PRIOR_IMAGES * np.diag(prior**2)) / (count + _PRIOR_IMAGES)
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, 0) + _FLOOR * np.trace(covariance) / size
    drawn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))
    return mean.astype(np.float32), (directions / np.sqrt(variances) @ drawn).astype(np.float32)


def _transformed(waves: np.ndarray, way: int) -> np.ndarray:
    """Returns sketches of transformed images: bit 0 flips horizontally, 1 vertically, and 2 transposes."""
    grids = waves.reshape(-1, SIDE, SIDE)
    odd = np.where(np.arange(SIDE) % 2, -1, 1).astype(waves.dtype)
    if way & 1:
        grids = grids * odd
    if way & 2:
        grids = grids * odd[:, None]
    if way & 4:
        grids = grids.swapaxes(1, 2)
    return grids.reshape(-1, SIDE * SIDE)


def _candidates(signs: np.ndarray, count: int) -> np.ndarray:
    """Returns pairs of rows of two images with similar signs; the first is that of an untransformed image.

    Args:
        signs: uint8 `(8 * count, bytes)`, packed signs of all images in eight ways.
        count: Number of images.
    """
    rng = np.random.default_rng(0)
    bits = 8 * signs.shape[1]
    words = np.ascontiguousarray(signs).view(np.uint64)
    unpacked = np.unpackbits(signs, axis=1)
    pairs = []
    for _ in range(_LISTS):
        chosen = np.ascontiguousarray(unpacked[:, rng.permutation(bits)[:64]])
        key = np.packbits(chosen, axis=1).view(">u8").ravel()
        order = np.argsort(key, kind="stable")
        for reach in range(1, _REACH + 1):
            low, high = order[:-reach], order[reach:]
            low, high = np.minimum(low, high), np.maximum(low, high)
            valid = (low < count) & (low != high % count)
            low, high = low[valid], high[valid]
            differing = np.bitwise_count(words[low] ^ words[high]).sum(axis=1)
            near = differing <= _MOST_BITS
            pairs.append(np.stack((low[near], high[near]), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)
