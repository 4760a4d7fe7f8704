import functools
import os

import numpy as np
import pytest

from transfer_jax.data import BadImageError, from_folder
from transfer_jax.data.folder_tree import Folder


@pytest.fixture
def linked(tree):
    """Two classes, and a folder of other images beside them."""
    root = tree("set/a/1.png", "set/b/1.png", "other/1.png", "other/2.png")
    return root / "set"


def test_links_are_followed(linked, cat):
    (linked / "c").symlink_to("../other")
    (linked / "a" / "more").symlink_to("../../other")
    (linked / "b" / "2.png").symlink_to("../a/1.png")
    dataset = from_folder(linked)
    assert dataset.counts() == {"a": 3, "b": 2, "c": 2}
    assert dataset.names[1] == "a/more/1.png"
    np.testing.assert_array_equal(dataset.image(4), cat[:8, :8])
    assert dataset.notes == ()


def test_links_that_make_loops_end(linked):
    (linked / "a" / "up").symlink_to(linked)
    (linked / "a" / "b").symlink_to("../b")
    (linked / "b" / "a").symlink_to("../a")
    (linked / "self").symlink_to(".")
    dataset = from_folder(linked)
    assert dataset.names == ["a/1.png", "a/b/1.png", "b/1.png", "b/a/1.png"]
    assert dataset.notes[0].endswith("left out: 'up' (2 times), 'a', 'b', 'self'")


def test_broken_links_are_bad_images(linked):
    (linked / "a" / "gone.png").symlink_to("../annex/1.png")
    (linked / "a" / "self.jpg").symlink_to("self.jpg")
    dataset = from_folder(linked)
    assert dataset.names == ["a/1.png", "a/gone.png", "a/self.jpg", "b/1.png"]
    with pytest.raises(BadImageError, match=r"a/gone.png.* link to '../annex/1.png', which does not exist"):
        dataset.image(1)
    with pytest.raises(BadImageError, match=r"a/self.jpg"):
        dataset.image(2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_pipes_are_left_out(linked):
    os.mkfifo(linked / "a" / "pipe.png")
    (linked / "a" / "link.png").symlink_to("pipe.png")
    dataset = from_folder(linked)
    assert dataset.names == ["a/1.png", "b/1.png"]
    assert dataset.notes == ("files left out: 2 pipes, sockets or devices",)


def test_a_folder_that_is_not_readable_is_named(linked, monkeypatch):
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match=r"the folder '.*/b' is not readable"):
        from_folder(linked)


def test_files_are_looked_at_once(linked, monkeypatch):
    looked = []

    def look(path, *, function):
        looked.append(os.fspath(path))
        return function(path)

    with monkeypatch.context() as patch:
        for name in ("stat", "lstat"):
            patch.setattr(os, name, functools.partial(look, function=getattr(os, name)))
        folder = Folder(str(linked))
        files = folder.images().files
    assert len(files) == 2
    assert {*looked} == {*folder.listed}  # Entries of `os.scandir` have been looked at.
    assert len(looked) == len(folder.listed)


def test_runs_are_no_classes(tree):
    root = tree("a/1.png", "b/1.png", "runs/x/config.json", "runs/x/metrics.jsonl", "runs/x/curves.png")
    dataset = from_folder(tree("runs/study/study.json", "runs/study/trials/1/mistakes/1.png"))
    assert dataset.class_names == ("a", "b")
    assert dataset.notes == (
        "folders without images: 'runs' (folders of runs and studies left out: 'study', 'x')",
    )
    assert len(Folder(str(root / "runs" / "x")).images().files) == 1  # The folder itself is requested.


def test_marks_of_downloads_are_left_out(tree):
    dataset = from_folder(tree("a/1.jpg", "a/1.jpg:Zone.Identifier", "a/2.jpg?w=300", "b/1.jpg"))
    assert dataset.names == ["a/1.jpg", "a/2.jpg?w=300", "b/1.jpg"]
    assert dataset.notes == ("files left out: 1 hidden or system files",)
