import os
import re
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.data import from_folder, load_dataset


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
        (["a.png", "b.png"], "no class folders .*expected one subfolder a class, found 'a.png', 'b.png'"),
        ([f"{i}.png" for i in range(8)], "found '0.png', .*'4.png' and 3 more"),
        (["a.png", "labels.csv"], "if 'labels.csv' has the labels: --images csv:.*/labels.csv"),
        ([".git/x.png"], "no class folders"),
        ([], "found nothing"),
        (["cat/a.png"], "only the class folder 'cat'"),
        (["cat/a.png", "dog/"], "only the class folder 'cat'.*folders without images: 'dog'"),
        (
            ["cat/a.png", "dog/a.png", "cow/1.heic", "cow/2.heic"],
            "'.*cow' has no images .*2 .heic.*JPEG or PNG",
        ),
        (
            ["cat/1.png", "dog/1.png", "all/cat/1.png", "all/dog/1.png"],
            "all' has .*beside it, 'cat', 'dog': move",
        ),
        (["images/1.png", "masks/1.png"], "images and their annotations, 'images', 'masks', but no class"),
        (
            ["images/a/1.png", "images/b/1.png", "masks/a/1.png"],
            "folders .if they are in '.*images': --images .*/images",
        ),
        (["train/images/1.png", "train/labels/1.png", "val/images/1.png"], "annotations, 'images', 'labels'"),
        (
            ["JPEGImages/1.jpg", "SegmentationClass/1.png", "Annotations/1.xml"],
            "annotations, 'JPEGImages', 'Seg",
        ),
        (["cat/train/1.png", "cat/val/1.png", "dog/train/1.png"], "'train', 'val': a split inside of class"),
    ],
)
def test_invalid_folders_raise(tree, files, message):
    with pytest.raises(ValueError, match=message):
        from_folder(tree(*files))


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
        f"{name}.png"
        for name in ("Train/cat/a", "Train/cat/b", "Train/dog/a", "val/cat/c", "val/dog/b", "test/cat/d")
    ]
    assert dataset.labels.tolist() == [0, 0, 1, 0, 1, 0]
    assert dataset.held_out is not None
    assert dataset.held_out.tolist() == [False, False, False, True, True, False]
    assert dataset.test is not None
    assert dataset.test.tolist() == [False] * 5 + [True]
    np.testing.assert_array_equal(dataset.image(3), cat[3:23, :30])
    assert dataset.notes == ("classes without test images: 'dog'",)


def test_classes_without_training_images_raise(split_animals, cat, encode):
    write(split_animals / "val" / "cow" / "x.png", encode(cat, "PNG"))
    with pytest.raises(ValueError, match="validation images but no training images: 'cow'"):
        from_folder(split_animals)


@pytest.mark.parametrize(
    ("files", "classes", "notes"),
    [
        (
            ["a/1.png", "b/1.png", "x.png", "y.png"],
            "a b",
            ["images without a class folder .*: 2 directly in"],
        ),
        (
            ["a/1.png", "b/1.png", "c/", "d/1.txt", "d/2.txt"],
            "a b",
            [r"folders without images: 'c', 'd' \(files left out: 2 .txt\)"],
        ),
        (
            ["animal/cat/1.png", "animal/dog/1.png", "plant/1.png"],
            "animal plant",
            ["images in subfolders only: 'animal'; their subfolders 'cat', 'dog'"],
        ),
        (["__MACOSX/a/._1.png", "set/a/1.png", "set/b/1.png"], "a b", ["read from 'set'", "'__MACOSX'"]),
        (["x/y/a/1.png", "x/y/b/1.png", "x/readme.txt", "docs/1.txt"], "a b", ["from 'x/y'"]),
        (
            ["train/set/a/1.png", "train/set/b/1.png", "val/set/a/1.png", "val/set/b/1.png"],
            "a b",
            ["read from 'set', .* in 'train'", "read from 'set', .* in 'val'"],
        ),
        (
            ["train/a/1.png", "train/b/1.png", "train/c/1.png", "val/b/1.png", "val/x.png", "y.png"],
            "a b c",
            ["1 directly in 'tree'", "1 directly in 'val'", "without validation images: 'a', 'c'"],
        ),
        (
            ["a/1.png", "a/1.txt", "a/@eaDir/1.png/T.jpg", "b/1.png", "b/Thumbs.db", "b/._1.png", "b/2.heic"],
            "a b",
            [
                "images left out: 1 .heic",
                "left out: 1 .txt, 2 hidden or system files",
                "folders .*: '@eaDir'",
            ],
        ),
    ],
)
def test_notes_count_what_is_left_out(tree, files, classes, notes):
    dataset = from_folder(tree(*files))
    assert dataset.class_names == tuple(classes.split())
    assert len(dataset.notes) == len(notes)
    for note, pattern in zip(dataset.notes, notes, strict=True):
        assert re.search(pattern, note)


def test_an_ordinary_folder_has_no_notes(tree):
    dataset = from_folder(tree("a/1.png", "a/more/2.png", "b/1.JPG", "b/2.jfif"))
    assert dataset.notes == ()
    assert dataset.names == ["a/1.png", "a/more/2.png", "b/1.JPG", "b/2.jfif"]


@pytest.mark.parametrize(
    ("training", "validation", "message"),
    [
        ("Cat", "cat", "class 'Cat' in training and 'cat' in validation; rename"),
        ("red_fox", "Red Fox", "class 'red_fox' in training and 'Red Fox' in validation; rename"),
        ("cat", "cow", "validation images but no training images: 'cow'"),
    ],
)
def test_other_classes_in_validation_raise(tree, training, validation, message):
    root = tree(f"train/{training}/1.png", "train/b/1.png", f"val/{validation}/1.png", "val/b/1.png")
    with pytest.raises(ValueError, match=message):
        from_folder(root)


def test_missing_folder_raises(tmp_path):
    with pytest.raises(ValueError, match=r"the folder '.*nowhere' does not exist"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is empty"):
        from_folder("")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pets.zip", "pets.zip' is an archive; unpack it"),
        ("pets.tar.gz", "pets.tar.gz' is an archive; unpack it"),
        ("table.csv", "table.csv' is a file, not a folder; for a table use csv:.*table.csv"),
        ("cat.png", "cat.png' is a file; expected a folder"),
    ],
)
def test_files_in_place_of_a_folder_raise(tree, name, message):
    with pytest.raises(ValueError, match=message):
        from_folder(tree(name) / name)


@pytest.mark.skipif(os.sep == "\\", reason="paths of Windows exist there")
def test_separators_of_windows(tree, monkeypatch):
    monkeypatch.chdir(tree("data/pets/a/1.png").parent)
    with pytest.raises(ValueError, match=r"does not exist; did you mean 'tree/data/pets'\?"):
        from_folder(r"tree\data\pets")


def test_one_class_is_enough_to_evaluate(tmp_path, cat, encode):
    write(tmp_path / "cat" / "a.png", encode(cat, "PNG"))
    assert from_folder(tmp_path, least_classes=1).class_names == ("cat",)
    assert load_dataset(str(tmp_path), least_classes=1).class_names == ("cat",)
    table = tmp_path / "table.csv"
    table.write_text("path,label\ncat/a.png,cat\n")
    assert load_dataset(f"csv:{table}", least_classes=1).class_names == ("cat",)
