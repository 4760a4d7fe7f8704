import pytest

from transfer_jax.data.file_endings import EXTENSIONS, UNREADABLE, ending, has_image_content, has_image_ending


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.JPG", ".jpg"),
        ("a.tar.gz", ".gz"),
        ("a.jpg?width=300&v=1.2", ".jpg"),
        ("a.jpg:large", ".jpg"),
        ("a.png!small", ".png"),
        ("a.jpg_original", ".jpg_original"),
        ("a.png~", ".png~"),
        ("0a1b2c3d", ""),
        ("photo 1.5 m", ""),
        ("a.jpg.1", ""),
        ("trailing.", ""),
        ("a.py:x", ""),
    ],
)
def test_endings(name, found):
    assert ending(name) == found
    assert has_image_ending(name) == (found in EXTENSIONS)


def test_an_ending_is_read_or_not():
    assert not UNREADABLE & {*EXTENSIONS}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_images_are_recognized_by_their_contents(tmp_path, cat, encode, kind):
    (tmp_path / "image").write_bytes(encode(cat[:8, :8], kind))
    assert has_image_content(str(tmp_path / "image"))


@pytest.mark.parametrize("content", [b"", b"some text", b"BM", b"P5", b"%PDF-1.7", b"\0" * 100])
def test_other_contents_are_no_images(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert not has_image_content(str(tmp_path / "file"))
    assert not has_image_content(str(tmp_path / "missing"))
