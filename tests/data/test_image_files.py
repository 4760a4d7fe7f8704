import os
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.data import BadImageError
from transfer_jax.data.image_files import from_files, image_files

FILES = ("a.png", "deep/b.JPG", "deep/hash", "notes.txt", ".hidden.png", "@eaDir/a.png/T.jpg", "c.heic")


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_or_a_list_of_one(tree, kind, as_list):
    root = tree(*FILES)
    files, notes = image_files([kind(root)] if as_list else kind(root))
    assert files == [root / "a.png", root / "deep" / "b.JPG", root / "deep" / "hash"]
    assert notes == (
        "images left out: 1 .heic; these formats are not read, convert the files to JPEG or PNG",
        "files left out: 1 .txt, 1 hidden or system files",
        "hidden or system folders left out: '@eaDir'",
    )


def test_files_are_taken_whatever_their_names(tree, monkeypatch):
    root = tree("a.dat", ".hidden.png", "folder/1.png")
    monkeypatch.chdir(root)
    assert image_files("a.dat") == ([Path("a.dat")], ())
    files, _ = image_files(iter([".hidden.png", Path("folder"), "a.dat"]))
    assert files == [Path(".hidden.png"), Path("folder/1.png"), Path("a.dat")]


def test_invalid_paths_raise(tree):
    root = tree("docs/a.txt", "docs/b.txt", "empty/")
    with pytest.raises(FileNotFoundError, match=r"no images in the folder '.*docs': files left out: 2 .txt"):
        image_files([root / "docs"])
    with pytest.raises(FileNotFoundError, match=r"no images in the folder '.*empty': it is empty"):
        image_files(root / "empty")
    with pytest.raises(FileNotFoundError, match=r"no image or folder at 'nowhere\.png'"):
        image_files("nowhere.png")
    with pytest.raises(ValueError, match="no image is given"):
        image_files([])
    with pytest.raises(ValueError, match="a path is empty"):
        image_files("")


@pytest.mark.parametrize("images", [None, b"a.png", {"a.png": 1}, np.zeros((2, 4, 4, 3), np.uint8), [3]])
def test_what_is_no_path_raises(images):
    with pytest.raises(ValueError, match=r"paths of image files or folders are needed, got .*from_arrays"):
        image_files(images)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_no_image(tree):
    os.mkfifo(tree() / "pipe.png")
    with pytest.raises(FileNotFoundError, match=r"pipe.png' is neither a file nor a folder"):
        image_files(tree() / "pipe.png")


def test_missing_files_are_bad_images(tree, cat):
    root = tree("a.png")
    dataset = from_files([root / "a.png", str(root / "b.png")], ["a", "b"], [0, 1], ("x", "y"))
    np.testing.assert_array_equal(dataset.image(0), cat[:8, :8])
    with pytest.raises(BadImageError, match=r"b: cannot be read \(.*No such file"):
        dataset.image(1)
    assert dataset.sizes is not None
    assert dataset.sizes.tolist() == [(root / "a.png").stat().st_size, -1]
