import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transfer_jax.data import from_arrays, from_folder, scan, scan_images
from transfer_jax.data.decode import FORMATS
from transfer_jax.data.tfds import DATA_DIR_VARIABLE


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def folder(tmp_path, cat) -> Path:
    """Six images of the cat: two equal, one bad, one gray, one flipped with an EXIF tag that undoes it."""
    root = tmp_path / "images"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    left, right, below = (Image.fromarray(piece) for piece in (cat[:200, :250], cat[:200, 200:], cat[150:]))
    left.save(root / "a" / "left.png")
    left.resize((125, 100)).save(root / "b" / "left small.jpg", quality=60)
    tag = Image.Exif()
    tag[0x0112] = 6
    right.transpose(Image.Transpose.ROTATE_90).save(root / "a" / "right turned.jpg", exif=tag, quality=95)
    right.save(root / "b" / "right.webp")
    below.convert("L").save(root / "b" / "below.bmp")
    (root / "b" / "broken.png").write_bytes(b"no image")
    return root


def test_scan_of_a_folder(folder, data_dir):
    dataset, done = from_folder(folder), []
    assert dataset.names[0] == "a/left.png"
    found = scan_images(dataset, done.append)
    by_name = {name: index for index, name in enumerate(dataset.names)}
    assert sum(done) == len(found) == 6
    assert found.sizes[by_name["a/left.png"]].tolist() == [250, 200]
    assert found.sizes[by_name["a/right turned.jpg"]].tolist() == [251, 200]
    assert [FORMATS[kind] for kind in found.kinds[[by_name["a/left.png"], by_name["b/right.webp"]]]] == [
        "PNG",
        "WEBP",
    ]
    assert np.flatnonzero(found.gray).tolist() == [by_name["b/below.bmp"]]
    assert not found.dark.any()
    assert np.flatnonzero(found.bad).tolist() == [by_name["b/broken.png"]]
    assert found.reasons[0].startswith("b/broken.png: not an image")
    pairs = [{dataset.names[i] for i in pair} for pair in found.pairs]
    assert {"a/left.png", "b/left small.jpg"} in pairs
    assert {"a/right turned.jpg", "b/right.webp"} in pairs
    assert len(pairs) == 2
    assert sorted(np.bincount(found.groups)) == [1, 1, 2, 2]
    assert sorted(found.shorter_sides) == [100, 150, 200, 200, 200]


def test_first_process_reads_and_the_others_receive(folder, monkeypatch):
    dataset = from_folder(folder)
    found = scan._first_scan(dataset, None)
    monkeypatch.setattr(scan, "default_data_dir", lambda: folder / "none")
    expected = scan_images(dataset)
    sent = [getattr(expected, name).astype(np.int32) for name in scan._CACHED]
    sent.insert(0, np.array([len(expected.pairs)], np.int32))

    def receive(own: np.ndarray) -> np.ndarray:
        assert not own.any()
        first = sent.pop(0)
        assert own.shape == first.shape
        return first

    monkeypatch.setattr(scan.processes, "is_first", lambda: False)
    monkeypatch.setattr(scan.processes, "sum_over_processes", receive)
    other = scan._first_scan(dataset, None)
    for name in scan._CACHED:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_array_equal(getattr(other, name), getattr(expected, name))
    assert found.reasons == other.reasons == expected.reasons


def test_scan_is_cached(folder, data_dir):
    dataset = from_folder(folder)
    first = scan_images(dataset)
    (kept,) = (data_dir / "surveys").iterdir()
    again = scan_images(dataset, lambda images: pytest.fail("looked again"))
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(again, field.name))
    kept.write_bytes(kept.read_bytes()[:50])
    assert len(scan_images(dataset)) == 6
    Image.new("RGB", (9, 9)).save(folder / "b" / "broken.png")
    assert not scan_images(dataset).bad.any()  # The dataset was opened before.


def test_broken_links_are_bad_until_their_files_arrive(folder):
    (folder / "a" / "link.png").symlink_to("../../store.png")
    dataset = from_folder(folder)
    found = scan_images(dataset)
    names = [dataset.names[i] for i in np.flatnonzero(found.bad).tolist()]
    assert names == ["a/link.png", "b/broken.png"]
    assert found.reasons[0] == (
        "a/link.png: cannot be read (a link to '../../store.png', which does not exist)"
    )
    Image.new("RGB", (9, 9)).save(folder.parent / "store.png")
    arrived = from_folder(folder)
    assert arrived.fingerprint != dataset.fingerprint
    assert np.count_nonzero(scan_images(arrived).bad) == 1


def test_scan_works_without_a_writable_cache(folder, data_dir):
    data_dir.write_text("a file")
    assert len(scan_images(from_folder(folder))) == 6


def test_nearly_black_images_are_found(cat):
    images = np.stack([cat[:64, :64], cat[:64, :64] // 16, cat[100:164, 100:164]])
    assert scan_images(from_arrays(images, ["x", "y", "y"])).dark.tolist() == [False, True, False]


def test_arrays_have_no_format(cat):
    images = np.stack([cat[:64, :64], cat[:64, :64], cat[100:164, 100:164]])
    found = scan_images(from_arrays(images, ["x", "y", "y"]))
    assert found.kinds.tolist() == [-1, -1, -1]
    assert found.pairs.tolist() == [[0, 1]]
    assert found.groups[0] == found.groups[1] != found.groups[2]
