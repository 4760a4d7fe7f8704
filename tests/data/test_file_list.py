"""Lists of the files of folders and tables that are kept."""

import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.data import BadImageError, ImageDataset, file_list, from_csv, from_folder
from transfer_jax.data.index import INDEX_FOLDER

COLUMNS = ("labels", "sizes", "held_out", "test", "groups")


@pytest.fixture(autouse=True)
def threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_list, "LISTED_FROM", 1)


def settle(folder: Path) -> None:
    """Makes all folders look as if nothing had changed for a while."""
    hour = time.time() - 3600
    for each in (folder, *folder.rglob("*")):
        if each.is_dir() and INDEX_FOLDER not in each.parts:
            os.utime(each, (hour, each.stat().st_mtime - 3600))


@pytest.fixture
def folder(tmp_path: Path, cat, encode) -> Path:
    root = tmp_path / "images"
    for part, count in (("train", 3), ("val", 1), ("test", 1)):
        for name in ("é", "dog"):
            inner = root / part / name / "deep"
            inner.mkdir(parents=True)
            for i in range(count):
                (inner / f"{part} {i}.png").write_bytes(encode(cat[i : 20 + i, :20].copy()))
    (root / "train" / "notes.txt").write_text("hello")
    settle(root)
    return root


@pytest.fixture
def table(folder: Path) -> Path:
    lines = ["path,label,group,split"]
    for i, file in enumerate(sorted(folder.glob("train/*/*/*.png"))):
        split = "validation" if i % 3 == 2 else "train"
        lines.append(f"{file.relative_to(folder.parent).as_posix()},{file.parts[-3]},g{i % 2},{split}")
    table = folder.parent / "table.csv"
    table.write_text("\n".join(lines))
    settle(folder.parent)
    return table


def is_listed(dataset: ImageDataset) -> bool:
    return isinstance(dataset.read, file_list.ReadListed)


def assert_same(one: ImageDataset, other: ImageDataset) -> None:
    assert [*one.names] == [*other.names]
    assert (one.fingerprint, one.notes, one.task) == (other.fingerprint, other.notes, other.task)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for i in range(len(one)):
        assert one.read(i) == other.read(i)


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_list_has_the_same_images(folder, table, monkeypatch, kind):
    load, place = (from_folder, folder) if kind == "folder" else (from_csv, table)
    with monkeypatch.context() as patch:
        patch.setattr(file_list, "LISTED_FROM", 1000)
        without = load(place)
    assert not is_listed(without)
    first = load(place)
    beside = folder if kind == "folder" else table.parent
    assert [each.name for each in beside.iterdir() if each.name.startswith(".")] == [INDEX_FOLDER]
    monkeypatch.setattr("transfer_jax.data.image_files.from_files", None)
    monkeypatch.setattr("transfer_jax.data.image_folder.read_folder", None)
    monkeypatch.setattr("transfer_jax.data.image_table.read_rows", None)
    again = load(place)
    sent = pickle.loads(pickle.dumps(again))
    for dataset in (first, again, sent):
        assert is_listed(dataset)
        assert_same(dataset, without)
    part = again.part([4, 1])
    assert part.names == [again.names[4], again.names[1]]


@pytest.mark.parametrize("change", ["new file", "removed file", "renamed class", "new class", "new link"])
def test_changed_folder_is_listed_again(folder, change):
    before = from_folder(folder)
    inner = folder / "train" / "dog" / "deep"
    if change == "new file":
        shutil.copy(inner / "train 0.png", inner / "again.png")
    elif change == "removed file":
        (inner / "train 0.png").unlink()
    elif change == "renamed class":
        for part in ("train", "val", "test"):
            (folder / part / "dog").rename(folder / part / "wolf")
    elif change == "new class":
        shutil.copytree(folder / "train" / "dog", folder / "train" / "emu")
    else:
        (folder / "train" / "dog" / "more").symlink_to(folder / "train" / "é")
    after = from_folder(folder)
    assert [*after.names] != [*before.names]
    settle(folder)
    kept = from_folder(folder)
    assert is_listed(kept)
    assert_same(kept, from_folder(folder))


def test_folders_that_changed_just_now_are_not_listed(folder):
    (folder / "train" / "dog" / "new").mkdir()
    assert not is_listed(from_folder(folder))


def test_overwritten_file_is_not_read_and_the_list_is_discarded(folder):
    dataset = from_folder(folder)
    file = folder / dataset.names[1]
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BadImageError, match="has changed since the list of files was made"):
        dataset.image(1)
    after = from_folder(folder)
    assert after.fingerprint != dataset.fingerprint
    assert after.read(1) == file.read_bytes()


@pytest.mark.parametrize("change", ["table", "options", "folder"])
def test_changed_table_is_listed_again(table, folder, change):
    dataset = from_csv(table)
    assert is_listed(dataset)
    if change == "table":
        table.write_text(table.read_text().replace("g1", "g2"))
        groups = from_csv(table).groups
        assert groups is not None
        assert "g2" in groups
    elif change == "options":
        with pytest.raises(ValueError, match="emu"):
            from_csv(table, classes=["dog", "emu"])
    else:
        (folder / "train" / "dog" / "deep" / "train 0.png").unlink()
        with pytest.raises(FileNotFoundError, match="1 of 6 images"):
            from_csv(table)


def test_missing_files_are_not_listed(folder):
    (folder / "train" / "dog" / "deep" / "dead.png").symlink_to(folder / "nowhere")
    settle(folder)
    assert not is_listed(from_folder(folder))


def test_list_needs_the_classes_that_are_asked_for(folder):
    for part in ("train", "val", "test"):
        shutil.rmtree(folder / part / "é")
    settle(folder)
    assert is_listed(from_folder(folder, least_classes=1))
    with pytest.raises(ValueError, match="at least two classes are needed"):
        from_folder(folder)
