"""Real photographs, and ELPV prepared once a session."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from transfer_jax.data import ImageDataset, from_arrays, from_elpv
from transfer_jax.models.preprocessing import Preprocessing


@pytest.fixture(scope="session")
def cat() -> np.ndarray:
    """A photograph of a cat, uint8 (300, 451, 3)."""
    return skimage.data.chelsea()


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Turns an array or Pillow image into an encoded file."""

    def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
        file = io.BytesIO()
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        picture.save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def png_file() -> Callable[..., bytes]:
    """Makes a PNG file of one row from its size, bit depth, colour type, bytes of pixels and other chunks."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def make(
        size: tuple[int, int], bits: int, colour: int, row: bytes, *chunks: tuple[bytes, bytes]
    ) -> bytes:
        header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0)
        others = b"".join(chunk(kind, body) for kind, body in chunks)
        pixels = chunk(b"IDAT", zlib.compress(b"\0" + row))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + others + pixels + chunk(b"IEND", b"")

    return make


@pytest.fixture(scope="session")
def preprocessing() -> Preprocessing:
    return Preprocessing(image_size=32, mean=(127.0, 120.0, 110.0), std=(128.0, 128.0, 128.0))


@pytest.fixture(scope="session")
def patches(cat: np.ndarray) -> ImageDataset:
    """40 patches of 48 x 60 pixels of the cat, in two classes."""
    images = [cat[8 * i : 8 * i + 48, 12 * j : 12 * j + 60] for i in range(8) for j in range(5)]
    return from_arrays(np.stack(images), np.arange(40) % 2, ("even", "odd"))


@pytest.fixture(scope="session")
def elpv_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    from_elpv(data_dir=folder)
    return folder


@pytest.fixture
def animals(tmp_path, cat, encode):
    """A folder of two classes with five images and unrelated files."""
    root = tmp_path / "animals"
    for i, name in enumerate(["dog/b.png", "dog/a.JPG", "cat/x.png", "cat/deep/er/y.png", "cat/z.webp"]):
        kind = "PNG" if name.endswith("png") else "JPEG" if name.endswith("JPG") else "WEBP"
        _write(root / name, encode(cat[i : i + 20, :30], kind))
    for name in ["cat/.hidden.png", "cat/.cache/h.png", ".git/a.png", "cat/notes.txt", "readme.md"]:
        _write(root / name, b"x")
    return root


@pytest.fixture
def tree(tmp_path: Path, cat: np.ndarray, encode: Callable[..., bytes]) -> Callable[..., Path]:
    """Makes a folder: files of images, other files without contents, and folders, whose names end in `/`."""
    image = encode(cat[:8, :8])

    def make(*names: str | bytes) -> Path:
        root = tmp_path / "tree"
        root.mkdir(exist_ok=True)
        for name in names:
            path = root / os.fsdecode(name)
            folder = os.fsdecode(name).endswith("/")
            (path if folder else path.parent).mkdir(parents=True, exist_ok=True)
            if not folder:
                empty = path.suffix in (".txt", ".xml", ".csv", ".db", ".mp4", ".heic", ".tga")
                path.write_bytes(b"" if empty else image)
        return root

    return make


def _write(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
