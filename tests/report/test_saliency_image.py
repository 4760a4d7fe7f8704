import numpy as np
from PIL import Image

from transfer_jax.report.saliency_image import write_overlay


def read(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), float)


def test_the_image_and_what_lights_up(tmp_path):
    image = np.full((64, 96, 3), (200, 40, 40), np.uint8)
    heat = np.zeros((2, 3))
    heat[1, 2] = 1
    write_overlay(tmp_path / "a.jpg", image, heat)
    found = read(tmp_path / "a.jpg")
    assert found.shape == (192, 2 * 288, 3)
    plain, drawn = found[:, :288], found[:, 288:]
    assert np.abs(plain[:, :-16] - (200, 40, 40)).max() < 8  # A JPEG blurs colours where the two meet.
    bright = drawn.mean(-1)
    row, column = np.unravel_index(bright.argmax(), bright.shape)
    assert row >= 96
    assert column >= 192
    np.testing.assert_allclose(drawn[:40, 16:40].std(-1), 0, atol=4)  # gray where nothing is


def test_large_images_keep_their_size(tmp_path):
    write_overlay(tmp_path / "a.jpg", np.zeros((224, 224, 3), np.uint8), np.ones((7, 7)))
    assert read(tmp_path / "a.jpg").shape == (224, 448, 3)
