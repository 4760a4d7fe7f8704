import collections

import numpy as np
import pytest
from PIL import Image

from transfer_jax.data import Augmentation, randaugment, train_transform

FILL = (1, 2, 3)


@pytest.fixture(scope="module")
def picture(cat) -> Image.Image:
    return Image.fromarray(cat[50:170, 100:200])


WITHOUT_STRENGTH = ["autocontrast", "equalize"]


@pytest.mark.parametrize("name", [name for name in randaugment.OPERATIONS if name not in WITHOUT_STRENGTH])
def test_strength_zero_changes_nothing(picture, name):
    result = randaugment.OPERATIONS[name](picture, 0.0, 1.0, FILL)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(picture))


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_full_strength_changes_the_image(picture, name, sign):
    result = randaugment.OPERATIONS[name](picture, 1.0, sign, FILL)
    assert result.size == picture.size
    assert result.mode == "RGB"
    changed = (np.asarray(result) != np.asarray(picture)).any(axis=-1).mean()
    assert changed == 0 if name == "identity" else changed > 0.2


SIGNED = [
    "rotate",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
]


@pytest.mark.parametrize("name", SIGNED)
def test_sign_changes_the_result(picture, name):
    one, other = (np.asarray(randaugment.OPERATIONS[name](picture, 0.5, sign, FILL)) for sign in (1.0, -1.0))
    assert (one != other).any(axis=-1).mean() > 0.2


def test_translation_is_exact(picture):
    pixels = np.asarray(picture)  # 120 x 100
    moved = np.asarray(randaugment.OPERATIONS["translate_x"](picture, 1.0, 1.0, FILL))
    np.testing.assert_array_equal(moved[:, :55], pixels[:, 45:])
    assert (moved[:, 56:] == FILL).all()
    moved = np.asarray(randaugment.OPERATIONS["translate_y"](picture, 1.0, -1.0, FILL))
    np.testing.assert_array_equal(moved[54:], pixels[:-54])
    assert (moved[:53] == FILL).all()


def test_posterize_and_solarize(picture):
    pixels = np.asarray(picture)
    posterized = np.asarray(randaugment.OPERATIONS["posterize"](picture, 1.0, 1.0, FILL))
    np.testing.assert_array_equal(posterized, pixels & 0xF0)
    solarized = np.asarray(randaugment.OPERATIONS["solarize"](picture, 0.5, 1.0, FILL))
    np.testing.assert_array_equal(solarized, np.where(pixels < 128, pixels, 255 - pixels))


def test_shear_keeps_the_centre():
    image = np.zeros((101, 101, 3), np.uint8)
    image[45:56, 45:56] = 255
    for name in ("shear_x", "shear_y"):
        result = np.asarray(randaugment.OPERATIONS[name](Image.fromarray(image), 1.0, 1.0, FILL))
        bright = np.argwhere(result[..., 0] > 127)
        np.testing.assert_allclose(bright.mean(axis=0), [50, 50], atol=0.6)


def test_every_operation_is_drawn_equally_often_with_both_signs(picture, monkeypatch):
    calls = collections.Counter()

    def recorder(name):
        def record(picture, level, sign, fill):
            assert level == pytest.approx(0.3)
            assert fill == FILL
            calls[name, sign] += 1
            return picture

        return record

    monkeypatch.setattr(randaugment, "OPERATIONS", {name: recorder(name) for name in randaugment.OPERATIONS})
    rng = np.random.default_rng(0)
    for _ in range(700):
        randaugment.randaugment(picture, 2, 9.0, rng, FILL)
    assert len(calls) == 28
    assert sum(calls.values()) == 1400
    assert min(calls.values()) > 25
    assert max(calls.values()) < 80


def test_fill_is_the_mean_colour(cat, preprocessing, monkeypatch):
    translate = randaugment.OPERATIONS["translate_x"]
    monkeypatch.setattr(randaugment, "OPERATIONS", {"translate_x": translate})
    augmentation = Augmentation(
        crop_scale=None, flip_horizontal=False, randaugment_ops=1, randaugment_magnitude=30.0
    )
    result = train_transform(cat, preprocessing, augmentation, np.random.default_rng(0))
    filled = (result == [127, 120, 110]).all(axis=-1).all(axis=0)
    assert 13 <= filled.sum() <= 15  # 0.45 of 32 columns
