import os
import unicodedata

import pytest

from transfer_jax.data.image_paths import ImagePaths


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("written", "found", "kinds"),
    [
        ("cat/1.png", "cat/1.png", []),
        ("./cat/1.png", "./cat/1.png", []),
        ("cat\\1.png", "cat/1.png", ["backslash"]),
        ("CAT/1.PNG", "cat/1.png", ["spelling"]),
        ("cat/1", "cat/1.png", ["ending"]),
        ("cat/img.v2", "cat/img.v2.png", ["ending"]),
        (unicodedata.normalize("NFD", "cat/é.png"), "cat/é.png", ["spelling"]),
        ("C:\\Users\\me\\cat\\1.png", "cat/1.png", ["backslash", "prefix"]),
        ("/no/such/folder/cat/1.png", "cat/1.png", ["prefix"]),
        ("/cat/1.png", "cat/1.png", ["prefix"]),
        ("data/cat/1.png", "cat/1.png", ["prefix"]),
        ("3.png", "images/3.png", ["subfolder"]),
        ("3", "images/3.png", ["ending", "subfolder"]),
    ],
)
def test_paths_as_people_write_them(tmp_path, written, found, kinds):
    files(tmp_path, "cat/1.png", "cat/img.v2.png", "cat/é.png", "dog/1.png", "images/3.png")
    finder = ImagePaths(tmp_path)
    file = finder.find(written)
    assert file is not None
    assert (file.name, os.path.realpath(file.path)) == (found, str(tmp_path / found))
    assert [*finder.changes] == kinds
    assert len(finder.notes()) == len(kinds)


def test_absolute_paths_and_urls_of_files(tmp_path):
    files(tmp_path, "a b/1.png")
    for written in (
        str(tmp_path / "a b/1.png"),
        f"file://{tmp_path}/a b/1.png",
        f"file://{tmp_path}/a%20b/1.png",
        str(tmp_path / "a b/1.png").replace("/", "\\"),
    ):
        file = ImagePaths(tmp_path / "elsewhere").find(written)
        assert file is not None
        assert file.path == str(tmp_path / "a b/1.png")


def test_one_prefix_and_one_subfolder_are_removed_from_all_paths(tmp_path):
    finder = ImagePaths(files(tmp_path, "1.png", "2.png", "x/3.png", "y/4.png"))
    assert finder.find("/mnt/cat/1.png") is not None
    assert finder.find("/mnt/dog/2.png") is None  # Or else two images could become one.
    assert finder.find("3.png") is not None
    assert finder.find("4.png") is None


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("cat", "is a folder, not an image"),
        ("https://example.org/1.png", "download the images first"),
        ("5", "its folder contains '5.jpg' and '5.png'"),
        ("5.webp", "its folder contains '5.jpg' and '5.png'"),
        ("same.png", "files of that name are in 'cat' and 'dog'"),
        ("beside.png", "it exists in"),
        ("other.png", "write '../images/' before the paths"),
        ("no.png", "paths are relative to the table's folder"),
    ],
)
def test_missing_files_are_explained(tmp_path, written, advice):
    files(
        tmp_path, "beside.png", "images/other.png", "t/5.jpg", "t/5.png", "t/cat/same.png", "t/dog/same.png"
    )
    finder = ImagePaths(tmp_path / "t")
    assert finder.find(written) is None
    assert advice in finder.explanation(written)
