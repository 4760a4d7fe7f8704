import dataclasses

import numpy as np
import pytest
from PIL import Image

from transfer_jax.data import Augmentation, eval_transform, train_transform
from transfer_jax.models.preprocessing import Preprocessing

STILL = Augmentation(crop_scale=None, flip_horizontal=False)


def sized(preprocessing: Preprocessing, size: int, fraction: float = 1.0, **changes: str) -> Preprocessing:
    return dataclasses.replace(preprocessing, image_size=size, crop_fraction=fraction, **changes)


def coordinates(height: int, width: int) -> np.ndarray:
    """Returns an image of coordinates: red is the column, green the row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_central_crop_is_exact(cat, preprocessing, interpolation):
    # 300 x 451: the side is 0.5 * 300, so nothing is resized; the left edge is at 150.5.
    image = cat[:, :450]
    result = eval_transform(image, sized(preprocessing, 150, 0.5, interpolation=interpolation))
    np.testing.assert_array_equal(result, image[75:225, 150:300])
    whole = sized(preprocessing, 300, interpolation=interpolation)
    np.testing.assert_array_equal(eval_transform(image, whole), image[:, 75:375])


@pytest.mark.parametrize("shape", [(300, 451), (451, 300), (17, 5), (1, 1), (3000, 40)])
def test_all_shapes_give_a_square(cat, preprocessing, shape):
    image = np.resize(cat, (*shape, 3))
    for result in (
        eval_transform(image, preprocessing),
        train_transform(image, preprocessing, Augmentation(), np.random.default_rng(0)),
    ):
        assert result.shape == (32, 32, 3)
        assert result.dtype == np.uint8


def test_downscaling_is_antialiased(preprocessing):
    y, x = np.mgrid[:256, :256]
    checkerboard = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    for interpolation in ("bicubic", "bilinear"):
        result = eval_transform(checkerboard, sized(preprocessing, 64, interpolation=interpolation))
        assert np.abs(result[2:-2, 2:-2].astype(int) - 127).max() <= 2


def test_the_interpolations_differ(cat, preprocessing):
    bicubic, bilinear = (
        eval_transform(cat, sized(preprocessing, 64, interpolation=name)).astype(float)
        for name in ("bicubic", "bilinear")
    )
    assert 0.5 < np.abs(bicubic - bilinear).mean() < 10


def test_positions_are_kept(preprocessing):
    # Pixel i of 32 covers the source from 112 + i to 113 + i.
    result = eval_transform(coordinates(256, 256), sized(preprocessing, 32, 0.125))
    np.testing.assert_array_equal(result, coordinates(256, 256)[112:144, 112:144])


EVERYTHING = Augmentation(flip_vertical=True, rotate90=True, color_jitter=0.4, randaugment_ops=2)


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_result_depends_on_the_generator(cat, preprocessing, augmentation):
    one, again, other = (
        train_transform(cat, preprocessing, augmentation, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.5


VARIED = Augmentation(
    crop_scale=(0.2, 1.0), flip_vertical=True, rotate90=True, color_jitter=0.4, randaugment_ops=2
)


@pytest.mark.parametrize("augmentation", [STILL, Augmentation(rotate90=True), VARIED])
def test_gray_image_equals_three_equal_channels(cat, preprocessing, augmentation):
    gray = Image.fromarray(cat).convert("L")
    same = np.asarray(gray.convert("RGB"))
    np.testing.assert_array_equal(eval_transform(gray, preprocessing), eval_transform(same, preprocessing))
    for seed in range(5):
        given = (preprocessing, augmentation)
        results = [
            train_transform(image, *given, np.random.default_rng(seed))
            for image in (gray, np.asarray(gray), same)
        ]
        np.testing.assert_array_equal(results[0], results[2])
        np.testing.assert_array_equal(results[1], results[2])


def test_no_augmentation_equals_eval_transform(cat, preprocessing):
    result = train_transform(cat, preprocessing, STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(result, eval_transform(cat, preprocessing))


@pytest.mark.parametrize(
    ("horizontal", "vertical", "rotate", "expected"),
    [
        (True, False, False, {(0, False), (0, True)}),
        (False, True, False, {(0, False), (2, True)}),
        (True, True, False, {(0, False), (0, True), (2, False), (2, True)}),
        (False, False, True, {(turns, False) for turns in range(4)}),
        (True, True, True, {(turns, mirror) for turns in range(4) for mirror in (False, True)}),
    ],
)
def test_symmetries_of_the_square(cat, preprocessing, horizontal, vertical, rotate, expected):
    augmentation = Augmentation(
        crop_scale=None, flip_horizontal=horizontal, flip_vertical=vertical, rotate90=rotate
    )
    plain = eval_transform(cat, preprocessing)
    symmetries = {
        np.rot90(plain[:, ::-1] if mirror else plain, turns).tobytes(): (turns, mirror)
        for turns in range(4)
        for mirror in (False, True)
    }
    rng = np.random.default_rng(0)
    draws = [symmetries[train_transform(cat, preprocessing, augmentation, rng).tobytes()] for _ in range(240)]
    assert set(draws) == expected
    share = 240 / len(expected)
    assert all(0.5 * share < draws.count(symmetry) < 1.5 * share for symmetry in expected)


def test_random_crops_are_within_their_ranges(preprocessing):
    image = coordinates(256, 256)
    augmentation = Augmentation(crop_scale=(0.1, 0.5), crop_ratio=(0.5, 2.0), flip_horizontal=False)
    rng = np.random.default_rng(0)
    areas, ratios, lefts = [], [], []
    for _ in range(300):
        result = train_transform(image, preprocessing, augmentation, rng).astype(float)
        # The distance of the centres of the first and the last pixel is 31/32 of the box.
        width = (result[16, -1, 0] - result[16, 0, 0]) * 32 / 31
        height = (result[-1, 16, 1] - result[0, 16, 1]) * 32 / 31
        areas.append(width * height / 256**2)
        ratios.append(width / height)
        lefts.append(result[16, 0, 0] / (256 - width))
    assert 0.09 < min(areas) < 0.13
    assert 0.45 < max(areas) < 0.53
    assert 0.46 < min(ratios) < 0.6
    assert 1.7 < max(ratios) < 2.15
    assert abs(np.log(ratios).mean()) < 0.08  # As many wide ones as tall ones.
    assert min(lefts) < 0.1
    assert max(lefts) > 0.9
    assert abs(np.mean(areas) - 0.3) < 0.03


def test_central_crop_if_no_random_crop_fits(preprocessing):
    image = coordinates(20, 250)
    augmentation = Augmentation(crop_scale=(1.0, 1.0), flip_horizontal=False)
    result = train_transform(image, preprocessing, augmentation, np.random.default_rng(0))
    # 4/3 of the height: 26.7 columns around 125.
    assert abs(int(result[0, 0, 0]) - 112) <= 1
    assert abs(int(result[0, -1, 0]) - 138) <= 1
    assert int(result[-1, 0, 1]) >= 19


def test_color_jitter_is_within_its_strength(preprocessing):
    gray = np.full((8, 8, 3), 100, np.uint8)  # Contrast and saturation leave it as it is.
    augmentation = dataclasses.replace(STILL, color_jitter=0.3)
    rng = np.random.default_rng(0)
    values = [train_transform(gray, preprocessing, augmentation, rng) for _ in range(100)]
    assert all((value == value[0, 0, 0]).all() for value in values)
    levels = [int(value[0, 0, 0]) for value in values]
    assert 69 <= min(levels) < 75
    assert 125 < max(levels) <= 131


def test_color_jitter_changes_contrast_and_saturation(cat, preprocessing):
    rng = np.random.default_rng(0)
    augmentation = dataclasses.replace(STILL, color_jitter=0.8)
    results = [train_transform(cat, preprocessing, augmentation, rng).astype(float) for _ in range(50)]
    plain = eval_transform(cat, preprocessing).astype(float)

    def saturation(image: np.ndarray) -> float:
        return float((image.max(-1) - image.min(-1)).mean() / image.mean())

    def contrast(image: np.ndarray) -> float:
        return float(image.std() / image.mean())

    for measure in (saturation, contrast):
        measured = [measure(result) for result in results]
        assert min(measured) < 0.7 * measure(plain)
        assert max(measured) > 1.15 * measure(plain)
