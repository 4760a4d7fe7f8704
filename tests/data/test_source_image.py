import io

import numpy as np
import pytest
from PIL import Image

from transfer_jax.data import BadImageError
from transfer_jax.data.decode import decode_scaled, open_jpeg, to_pil
from transfer_jax.data.source_image import SourceImage

BICUBIC = Image.Resampling.BICUBIC


def encoded(width: int, height: int, kind: str = "JPEG", orientation: int = 1) -> bytes:
    """Returns a file of smooth colours with some noise, as photographs have it."""
    small = np.random.default_rng(0).integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(small).resize((width, height), BICUBIC), dtype=np.float64)
    pixels = pixels + np.random.default_rng(1).normal(0, 5, pixels.shape)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 92} if kind == "JPEG" else {}), exif=exif)
    return file.getvalue()


def crops(content: bytes, box, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a crop of the image, and that of all of its pixels."""
    whole = to_pil(content, "a")
    expected = whole.resize((side, side), BICUBIC, box=box)
    source = SourceImage(content, "a")
    assert source.size == whole.size
    return np.asarray(source.crop(box, (side, side), BICUBIC), int), np.asarray(expected, int)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_large_photographs_are_decoded_at_a_lower_resolution(orientation):
    content = encoded(1600, 1200, orientation=orientation)
    assert max(decode_scaled(content, "a", 0.2).size) == 400
    opened = open_jpeg(content)
    assert opened is not None
    assert opened.size == ((1600, 1200) if orientation < 5 else (1200, 1600))
    found, expected = crops(content, (80.5, 120.25, 1080.5, 1120.25), 96)
    assert np.abs(found - expected).mean() < 0.5
    assert np.abs(found - expected).max() <= 8


@pytest.mark.parametrize("side", [64, 200, 400])
def test_small_images_and_crops_are_exact(side):
    found, expected = crops(encoded(700, 500), (10, 20, 210, 220), side)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_are_exact(kind):
    found, expected = crops(encoded(900, 700, kind), (0, 0, 700, 700), 64)
    np.testing.assert_array_equal(found, expected)


def test_a_second_crop_is_of_the_same_image():
    source, box = SourceImage(encoded(1600, 1200), "a"), (80.5, 120.25, 1080.5, 1120.25)
    first = source.crop(box, (96, 96), BICUBIC)
    whole = source.crop((0, 0, 1600, 1200), (400, 300), BICUBIC)
    np.testing.assert_array_equal(np.asarray(source.crop(box, (96, 96), BICUBIC)), np.asarray(first))
    again = SourceImage(encoded(1600, 1200), "a").crop((0, 0, 1600, 1200), (400, 300), BICUBIC)
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(again))


def test_damaged_files_raise():
    with pytest.raises(BadImageError, match="cats/1: cannot be decoded"):
        SourceImage(encoded(900, 700)[:5000], "cats/1").crop((0, 0, 700, 700), (64, 64), BICUBIC)
    with pytest.raises(BadImageError, match="cats/2: not an image"):
        SourceImage(b"text", "cats/2")
    assert open_jpeg(b"\xff\xd8\xff nonsense") is None
