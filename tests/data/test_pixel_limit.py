import io

import pytest
from PIL import Image

from transfer_jax.data import BadImageError
from transfer_jax.data.pixel_limit import check_pixels


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_images_are_refused_by_their_header(kind):
    content = encoded(30, 20, kind)
    check_pixels(content, "a", 600)
    with pytest.raises(BadImageError, match=r"^a: 30 x 20 pixels are more than 0\.000599 megapixels"):
        check_pixels(content[:-2], "a", 599)


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(BadImageError, match="a: too large"):
        check_pixels(encoded(30, 20), "a", 1000)


@pytest.mark.parametrize("content", [b"", b"hello", encoded(3, 3)[:20]])
def test_other_problems_are_left_to_decoding(content):
    check_pixels(content, "a", 1)
