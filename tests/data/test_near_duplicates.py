"""Tests that changed copies are found, and that different images are not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageEnhance

from transfer_jax.data import from_elpv
from transfer_jax.data.decode import summarize_image
from transfer_jax.data.near_duplicates import ALIKE, connected_groups, near_duplicates, sketch


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": lambda image: jpeg(image, 75),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned and compressed": lambda image: jpeg(image.transpose(Image.Transpose.ROTATE_270), 80),
}


def sketch_of(image: Image.Image | np.ndarray) -> np.ndarray:
    return sketch(summarize_image(np.asarray(image), "image").thumbnail)


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    """Different patches of photographs, 100 x 100 pixels, none of them plain."""
    pieces = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        photograph = getattr(skimage.data, name)()[..., :3]
        for top in range(0, photograph.shape[0] - 99, 100):
            for left in range(0, photograph.shape[1] - 99, 100):
                piece = photograph[top : top + 100, left : left + 100]
                if piece.std() > 15:
                    pieces.append(Image.fromarray(piece))
    return pieces


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copy_is_the_only_pair(scenes, change):
    copies = [CHANGES[change](image) for image in scenes[::2]]
    pairs = near_duplicates(np.stack([sketch_of(image) for image in (*scenes, *copies)]))
    expected = {(2 * index, len(scenes) + index) for index in range(len(copies))}
    found = set(map(tuple, pairs.tolist()))
    assert len(scenes) > 60
    assert not found - expected
    assert len(found) >= 0.9 * len(expected)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_copy_in_a_small_dataset(scenes, count):
    images = [*scenes[:: len(scenes) // count][: count - 1], jpeg(scenes[0], 60)]
    pairs = near_duplicates(np.stack([sketch_of(image) for image in images]))
    assert pairs.tolist() == [[0, count - 1]]


def test_different_colours_are_no_duplicates(scenes):
    """Such as products that are photographed alike and classified by colour."""
    pixels = np.asarray(scenes[0]).astype(int)
    gray = pixels.mean(axis=-1, keepdims=True)
    shades = [gray + np.array(shift) for shift in ((40, -20, -20), (-20, 40, -20), (0, 0, 0))]
    images = [np.clip(shade, 0, 255).astype(np.uint8) for shade in shades]
    assert near_duplicates(np.stack([sketch_of(image) for image in images])).tolist() == []


def test_plain_images_are_not_compared():
    plain = [np.full((40, 40, 3), level, np.uint8) for level in (0, 0, 90, 90)]
    assert near_duplicates(np.stack([sketch_of(image) for image in plain])).shape == (0, 2)
    assert near_duplicates(np.zeros((0, 258), np.float32)).shape == (0, 2)


def test_solar_cells_have_few_duplicates(elpv_data_dir):
    """All cells show the same wires. Some modules were photographed twice: cell 2288 is cell 1746."""
    cells = from_elpv(data_dir=elpv_data_dir)
    chosen = [*range(0, 1700, 6), *range(1740, 1760), *range(2282, 2302)]
    sketches = [sketch(cells.summary(index).thumbnail) for index in chosen]
    noisy = [np.clip(cells.image(index) * 0.9 + 5, 0, 255).astype(np.uint8) for index in chosen[:280:10]]
    pairs = near_duplicates(np.stack([*sketches, *map(sketch_of, noisy)]))
    names = [cells.names[index][11:15] for index in chosen]
    found = {(names[first], names[second]) for first, second in pairs.tolist() if second < len(names)}
    assert ("1746", "2288") in found
    assert ("1752", "2294") in found
    early = [pair for pair in found if pair[1] < "1700"]
    assert len(early) < 20
    copies = {(first, second) for first, second in pairs.tolist() if second >= len(names)}
    assert {(10 * index, len(names) + index) for index in range(len(noisy))} <= copies


def test_sorted_lists_find_the_pairs_of_a_full_comparison():
    """A tenth of the images are copies of others with more or less noise."""
    rng = np.random.default_rng(0)
    waves = rng.normal(size=(3000, 256))
    waves[2700:] = waves[:300] + rng.normal(size=(300, 256)) * rng.uniform(0.05, 0.6, (300, 1))
    waves[:, 0] = 0
    pairs = near_duplicates(np.concatenate((waves, np.zeros((3000, 2))), axis=1).astype(np.float32))
    cosine = np.einsum("ij,ij->i", waves[:300], waves[2700:])
    cosine /= np.linalg.norm(waves[:300], axis=1) * np.linalg.norm(waves[2700:], axis=1)
    surely, surely_not = np.flatnonzero(cosine > ALIKE + 0.03), np.flatnonzero(cosine < ALIKE - 0.03)
    found = set(map(tuple, pairs.tolist()))
    assert len(surely) > 100
    assert len(surely_not) > 30
    assert np.mean([(i, 2700 + i) in found for i in surely]) > 0.98
    assert not any((i, 2700 + i) in found for i in surely_not)
    assert len(found) <= 300


def test_connected_groups_by_hand():
    groups = connected_groups(np.array([[0, 3], [3, 5], [1, 2]]), 7)
    assert len(np.unique(groups)) == 4
    assert groups[0] == groups[3] == groups[5]
    assert groups[1] == groups[2] != groups[0]
    assert len(np.unique(connected_groups(np.zeros((0, 2), np.int32), 3))) == 3
