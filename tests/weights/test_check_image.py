import numpy as np

from transfer_jax.weights.check_image import FORMULA, check_image


def test_the_formula_gives_the_image():
    image = check_image(40)
    assert image.shape == (1, 40, 40, 3)
    assert image.dtype == np.uint8
    for y, x, c in ((0, 0, 0), (7, 3, 1), (39, 38, 2), (20, 39, 0)):
        assert image[0, y, x, c] == eval(FORMULA, {"y": y, "x": x, "c": c})
    assert len(np.unique(image)) > 200
