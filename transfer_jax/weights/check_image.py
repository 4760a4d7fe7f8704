"""A fixed image, by which an exported model is checked wherever it is loaded."""

import numpy as np

FORMULA = "(y * y + 3 * x * (c + 1) + x * y // 8) % 256"
"""Value of row `y`, column `x` and channel `c` (red, green, blue), as integers; a Python expression."""


def check_image(size: int) -> np.ndarray:
    """Returns the image as uint8 `(1, size, size, 3)`."""
    y, x, c = np.indices((size, size, 3))
    return ((y * y + 3 * x * (c + 1) + x * y // 8) % 256).astype(np.uint8)[None]
