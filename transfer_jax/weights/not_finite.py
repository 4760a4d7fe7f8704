"""The number of values of an array that are NaN or infinite."""

import numpy as np


def not_finite(array: np.ndarray) -> int:
    """Returns the number of values that are NaN or infinite; 0 for integers.

    The smallest and the largest value show whether there are any, without memory for a mask.
    """
    if array.dtype.kind in "biu" or not array.size:
        return 0
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            if np.isfinite(array.min()) and np.isfinite(array.max()):
                return 0
    return int(array.size - np.count_nonzero(np.isfinite(array)))
