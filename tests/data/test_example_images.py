"""Images in the forms that examples have."""

import numpy as np
import pytest
from PIL import Image

from transfer_jax.data import BadImageError
from transfer_jax.data.decode import to_pil, to_rgb_array
from transfer_jax.data.example_images import image_content, is_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
GRAY = RGB[..., 0]
BLACK_AND_WHITE = GRAY > 127
ALPHA = np.full((6, 8, 1), 255, np.uint8)


def pixels(value: object) -> np.ndarray:
    """The RGB pixels that training sees of an image."""
    return to_rgb_array(to_pil(image_content(value, "image 3"), "image 3"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (RGB, RGB),
        (RGB.transpose(2, 0, 1), RGB),
        (GRAY, GRAY),
        (GRAY[..., None], GRAY),
        (GRAY[None], GRAY),
        (np.concatenate([RGB, ALPHA], -1), RGB),
        (np.concatenate([RGB, 0 * ALPHA], -1).transpose(2, 0, 1), np.full_like(RGB, 255)),
        (RGB.astype(np.float32) / 255, RGB),
        (RGB.transpose(2, 0, 1) / 255, RGB),
        (RGB.astype(np.int64), RGB),
        (BLACK_AND_WHITE, BLACK_AND_WHITE * np.uint8(255)),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GRAY), GRAY),
        (Image.fromarray(GRAY).convert("LA"), GRAY),
        (Image.fromarray(RGB).convert("RGBA"), RGB),
    ],
    ids=[
        *("rgb", "channels first", "gray", "gray channel", "gray first", "opaque", "transparent first"),
        *("float", "float first", "int", "bool", "pillow rgb", "pillow gray", "pillow alpha", "pillow rgba"),
    ],
)
def test_arrays_and_pillow_images(value, expected):
    assert is_image(value)
    expected = np.stack([expected] * 3, -1) if expected.ndim == 2 else expected
    np.testing.assert_array_equal(pixels(value), expected)


def test_files(encode, tmp_path):
    content, path = encode(RGB), tmp_path / "a.png"
    path.write_bytes(content)
    values = (content, bytearray(content), path, str(path))
    for value in (*values, {"bytes": content, "path": None}, {"bytes": None, "path": str(path)}):
        assert is_image(value)
        np.testing.assert_array_equal(pixels(value), RGB)
    with pytest.raises(FileNotFoundError):
        image_content(tmp_path / "b.png", "image 3")


@pytest.mark.parametrize("value", [3, "cat", b"3", None, np.zeros(3), np.zeros((2, 2, 2)), {"bytes": b""}])
def test_other_values_are_not_images(value):
    assert not is_image(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected a Pillow image, .* got int"),
        (np.zeros((5, 6, 7)), r"channels, got \(5, 6, 7\); .* use inputs"),
        (RGB.astype(np.float32), r"must be in 0\.\.1, got 0\.\.255; convert values .*uint8"),
        (RGB / 127.5 - 1, r"got -1\.\.1; undo a normalization"),
        (np.full((4, 4), np.nan), "no finite numbers"),
        (RGB.astype(np.uint16) * 257, r"uint16 pixels must be in 0\.\.255, got 0\.\.65535; scale"),
        (RGB.astype(object), "expected numbers, got object"),
    ],
)
def test_errors_name_the_image_and_what_to_do(value, message):
    with pytest.raises(BadImageError, match=f"image 3: .*{message}"):
        image_content(value, "image 3")
