import os
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.data import from_folder


def write(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_from_folder_reads_images_and_classes(animals, cat):
    dataset = from_folder(animals)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.names == ["cat/deep/er/y.png", "cat/x.png", "cat/z.webp", "dog/a.JPG", "dog/b.png"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(dataset.image(0), cat[3:23, :30])
    assert all(dataset.image(i).shape == (20, 30, 3) for i in range(5))


def test_folder_fingerprint_depends_on_its_files(animals, tmp_path):
    before = from_folder(animals).fingerprint
    assert from_folder(str(animals)).fingerprint == before
    moved = tmp_path / "moved"
    animals.rename(moved)
    assert from_folder(moved).fingerprint == before
    prints = {before}
    os.utime(moved / "dog" / "a.JPG", ns=(1, 1))
    prints.add(from_folder(moved).fingerprint)
    with (moved / "dog" / "a.JPG").open("ab") as file:
        file.write(b"more")
    os.utime(moved / "dog" / "a.JPG", ns=(1, 1))
    prints.add(from_folder(moved).fingerprint)
    (moved / "dog").rename(moved / "hound")
    prints.add(from_folder(moved).fingerprint)
    (moved / "cat" / "x.png").unlink()
    prints.add(from_folder(moved).fingerprint)
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.png", "b.png"], "no class folders: expected one subfolder a class, found 'a.png', 'b.png'"),
        ([f"{i}.png" for i in range(8)], "found '0.png', .*'4.png' and 3 more"),
        ([".git/x.png"], "no class folders"),
        (["cat/a.png"], "only the class folder 'cat'"),
        (["cat/a.png", "dog/a.txt"], r"class folder '.*dog' has no images \(.png .*found 'a.txt'"),
        (["cat/a.png", "dog/.a.png"], "class folder '.*dog' has no images .*found nothing"),
    ],
)
def test_invalid_folders_raise(tmp_path, files, message):
    for name in files:
        write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        from_folder(tmp_path)


@pytest.fixture
def split_animals(tmp_path, cat, encode):
    """A folder with `train`, `val` and `test`."""
    root = tmp_path / "split"
    for i, name in enumerate(
        ["Train/cat/a", "Train/cat/b", "Train/dog/a", "val/cat/c", "val/dog/b", "test/cat/d"]
    ):
        write(root / f"{name}.png", encode(cat[i : i + 20, :30], "PNG"))
    return root


def test_folder_with_its_own_split(split_animals, cat):
    dataset = from_folder(split_animals)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.names == [
        f"{name}.png" for name in ("Train/cat/a", "Train/cat/b", "Train/dog/a", "val/cat/c", "val/dog/b")
    ]
    assert dataset.labels.tolist() == [0, 0, 1, 0, 1]
    assert dataset.held_out is not None
    assert dataset.held_out.tolist() == [False, False, False, True, True]
    np.testing.assert_array_equal(dataset.image(3), cat[3:23, :30])
    (split_animals / "val").rename(split_animals / "more.val")
    assert from_folder(split_animals).class_names == ("Train", "more.val", "test")


def test_part_without_class_folders_is_ignored(split_animals, cat, encode):
    for part in ("val", "test"):
        for folder in (split_animals / part).iterdir():
            for file in folder.iterdir():
                file.rename(split_animals / part / file.name)
            folder.rmdir()
    dataset = from_folder(split_animals)
    assert dataset.names == ["Train/cat/a.png", "Train/cat/b.png", "Train/dog/a.png"]
    assert dataset.held_out is None


def test_classes_without_training_images_raise(split_animals, cat, encode):
    write(split_animals / "val" / "cow" / "x.png", encode(cat, "PNG"))
    with pytest.raises(ValueError, match="validation images but no training images: 'cow'"):
        from_folder(split_animals)


def test_classes_named_train_and_test(tmp_path, cat, encode):
    for name in ("train/a.png", "test/b.png"):
        write(tmp_path / name, encode(cat, "PNG"))
    assert from_folder(tmp_path).class_names == ("test", "train")


def test_missing_folder_raises(tmp_path):
    with pytest.raises(ValueError, match=r"the folder '.*nowhere' does not exist"):
        from_folder(tmp_path / "nowhere")
