import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from local_bucket import folder, new_machine

from transfer_jax.data.index import (
    INDEX_FOLDER,
    DatasetIndex,
    IndexInvalidError,
    IndexPlace,
    PartIndex,
    build_index,
    index_place,
    open_index,
)
from transfer_jax.data.index import build as build_module
from transfer_jax.data.index import join as join_module
from transfer_jax.data.index import part as part_module

PARTS = [["a", 3], ["b", 0], ["c", 2]]
KEY = {"classes": ["x", "y"]}


class Reader:
    """Reads the parts above, and counts how often."""

    def __init__(self) -> None:
        self.read: list = []

    def __call__(self, part: list) -> PartIndex:
        self.read.append(part[0])
        name, count = part[:2]
        return PartIndex(
            columns={
                "labels": np.arange(count, dtype=np.int32) % 2,
                "offset": np.arange(count, dtype=np.uint8 if name == "a" else np.int64),
            },
            texts={"names": [f"{name}{place}é" for place in range(count)]},
            about={"left out": count},
        )


class Log:
    """A progress that keeps what it receives."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done, self.total = 0, 0

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.done, self.total = done, total

    def advance(self, images: int, **values: float) -> None:
        self.done += images

    def finish(self) -> None:
        self.lines.append("finished")

    def log(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def place(tmp_path: Path) -> IndexPlace:
    return index_place(tmp_path, "test")


def build(place: IndexPlace, parts: list = PARTS, key: object = KEY, **options) -> tuple[DatasetIndex, list]:
    reader = options.pop("reader", Reader())
    return build_index("test", key, parts, reader, place, **options), reader.read


def test_index_has_the_columns_of_all_parts_in_order(place: IndexPlace, tmp_path: Path) -> None:
    progress = Log()
    index, read = build(place, progress=progress, total=5)
    assert sorted(read) == ["a", "b", "c"]
    assert (len(index), index.part_counts.tolist(), index.part_starts.tolist()) == (
        5,
        [3, 0, 2],
        [0, 3, 3, 5],
    )
    np.testing.assert_array_equal(index.column("labels"), np.array([0, 1, 0, 0, 1], np.int32))
    np.testing.assert_array_equal(index.column("offset"), [0, 1, 2, 0, 1])
    assert [*index.texts("names")] == ["a0é", "a1é", "a2é", "c0é", "c1é"]
    assert index.part_abouts == [{"left out": 3}, {"left out": 0}, {"left out": 2}]
    assert index.get("weights") is None
    with pytest.raises(KeyError, match="no column 'weights'"):
        index.column("weights")
    assert "there is none yet" in progress.lines[0]
    assert progress.done == progress.total == 5
    assert [each.name for each in (tmp_path / INDEX_FOLDER).iterdir()] == [place.folder.name]
    assert not (place.folder / "parts").exists()


def test_second_build_opens_the_index(place: IndexPlace) -> None:
    first, _ = build(place)
    progress = Log()
    again, read = build(place, progress=progress)
    assert (read, progress.lines, again.fingerprint) == ([], [], first.fingerprint)


def test_finish_adds_facts_and_columns(place: IndexPlace) -> None:
    def finish(joined):
        assert (joined.count, joined.abouts[0], joined.texts("names")[3]) == (5, {"left out": 3}, "c0é")
        return {"task": "t", "fingerprint": "f"}, {"twice": 2 * joined.column("labels")}

    index, _ = build(place, finish=finish)
    assert (index.about, index.fingerprint) == ({"task": "t"}, "f")
    np.testing.assert_array_equal(index.column("twice"), 2 * index.column("labels"))


@pytest.mark.parametrize(
    ("parts", "key", "read", "reason"),
    [
        ([*PARTS, ["d", 1]], KEY, ["d"], "1 of its 4 parts are new or changed, 0 are gone"),
        ([["a", 3], ["c", 3]], KEY, ["c"], "1 of its 2 parts are new or changed, 2 are gone"),
        (PARTS, {"classes": ["x", "z"]}, ["a", "b", "c"], "its classes"),
    ],
    ids=["new part", "changed part", "other key"],
)
def test_changed_source_is_indexed_again(place: IndexPlace, parts, key, read, reason) -> None:
    first, _ = build(place)
    progress = Log()
    index, found = build(place, parts, key, progress=progress)
    assert sorted(found) == read
    assert reason in progress.lines[0]
    assert [*index.texts("names")] == [f"{name}{i}é" for name, count in parts for i in range(count)]
    assert index.fingerprint != first.fingerprint
    assert [*first.texts("names")] == ["a0é", "a1é", "a2é", "c0é", "c1é"]  # A reader still uses it.


@pytest.mark.parametrize("damage", ["truncated column", "missing column", "truncated json", "version"])
def test_damaged_index_is_made_again(place: IndexPlace, damage: str) -> None:
    index, _ = build(place)
    column, file = place.folder / index.contents / "labels.npy", place.folder / "index.json"
    if damage == "truncated column":
        os.truncate(column, column.stat().st_size - 4)
    elif damage == "missing column":
        column.unlink()
    elif damage == "truncated json":
        os.truncate(file, 100)
    else:
        file.write_text(json.dumps({**json.loads(file.read_text()), "version": 99}))
    with pytest.raises(IndexInvalidError):
        open_index(place, "test", KEY, PARTS)
    again, read = build(place)
    assert sorted(read) == ["a", "b", "c"]
    np.testing.assert_array_equal(again.column("labels"), [0, 1, 0, 0, 1])


def test_error_of_a_part_leaves_no_index_and_the_rest_is_kept(place: IndexPlace) -> None:
    class Broken(Reader):
        def __call__(self, part: list) -> PartIndex:
            if part[0] == "c":
                raise ValueError("shard c is truncated")
            return super().__call__(part)

    with pytest.raises(ValueError, match="shard c is truncated"):
        build(place, reader=Broken())
    assert not (place.folder / "index.json").exists()
    _, read = build(place)
    assert read == ["c"]


@pytest.mark.parametrize(("error", "kept"), [(ValueError, []), (OSError, ["parts"])])
def test_error_of_the_whole_leaves_no_columns(place: IndexPlace, error: type[Exception], kept) -> None:
    def finish(joined):
        raise error("there are no images")

    with pytest.raises(error, match="there are no images"):
        build(place, finish=finish)
    assert [each.name for each in place.folder.iterdir() if each.is_dir()] == kept


def test_full_disk_is_an_error_that_names_the_file(
    place: IndexPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, function in ((part_module.np, "savez"), (join_module, "_write")):
        with monkeypatch.context() as patch:
            patch.setattr(module, function, full)
            with pytest.raises(OSError, match=rf"No space left on device: '{place.folder}/"):
                build(place)
        assert not [*place.folder.rglob("*.tmp"), *place.folder.rglob("*.npy"), *place.folder.glob("*.json")]
    index, read = build(place)
    assert read == []  # The groups of the second attempt are complete.
    assert len(index) == 5


@pytest.mark.parametrize("damage", ["file", "array"])
def test_damaged_group_is_read_again(place: IndexPlace, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    def fail(*args: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "join_parts", fail)
        with pytest.raises(OSError, match="killed"):
            build(place)
    files = sorted((place.folder / "parts").iterdir())
    assert len(files) == 3
    content = bytearray(files[0].read_bytes())
    content[content.index(b"column labels.npy") + 150] ^= 255  # In the array, whose checksum is wrong then.
    files[0].write_bytes(content if damage == "array" else b"no archive")
    index, read = build(place)
    assert len(read) == 1
    np.testing.assert_array_equal(index.column("labels"), [0, 1, 0, 0, 1])


def test_parts_with_other_columns_are_an_error(place: IndexPlace) -> None:
    def read(part: list) -> PartIndex:
        return PartIndex(columns={part[0]: np.zeros(2)})

    with pytest.raises(ValueError, match="parts have different columns"):
        build_index("test", KEY, PARTS, read, place)
    with pytest.raises(ValueError, match="no parts"):
        build_index("test", {"other": 1}, [], read, place)


def test_index_is_in_the_cache_if_the_folder_is_not_writable(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("transfer_jax.data.index.place.can_create", lambda path: False)
    monkeypatch.setattr("transfer_jax.data.index.place.user_cache", lambda name: tmp_path / "cache" / name)
    place = index_place(tmp_path / "data", "test")
    assert place.folder.parent == tmp_path / "cache" / "index"
    assert len(build(place)[0]) == 5


def test_a_folder_and_the_same_folder_as_a_bucket_have_an_index_each(tmp_path: Path, monkeypatch) -> None:
    with folder(tmp_path, monkeypatch):
        new_machine(monkeypatch, tmp_path / "machine")
        (tmp_path / "bucket").mkdir()
        places = [index_place(tmp_path / "bucket", "test"), index_place("gs://bucket", "test")]
        for each in places:
            assert len(build(each)[0]) == 5
            assert build(each)[1] == []
    assert len([*(tmp_path / "bucket" / INDEX_FOLDER).iterdir()]) == 2


def test_index_in_a_bucket_is_shared_and_copied(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    first = IndexPlace(tmp_path / "one", system, "/bucket/index")
    _, read = build(first)
    assert len(read) == 3
    assert not system.exists("/bucket/index/parts")
    index, read = build(IndexPlace(tmp_path / "two", system, "/bucket/index"))
    assert read == []
    assert [*index.texts("names")] == ["a0é", "a1é", "a2é", "c0é", "c1é"]


def test_index_is_local_if_the_bucket_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fsspec.filesystem("memory")

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(type(system), "put_file", refuse)
    place, progress = IndexPlace(tmp_path / "one", system, "/private/index"), Log()
    index, _ = build(place, progress=progress)
    np.testing.assert_array_equal(index.column("labels"), [0, 1, 0, 0, 1])
    assert sum("403 Forbidden" in line for line in progress.lines) == 1
    _, read = build(place)
    assert read == []


KILLED = """
import sys, time
import numpy as np
from pathlib import Path
from transfer_jax.data.index import PartIndex, build_index, index_place

def read(part):
    if part >= 4:
        time.sleep(60)
    return PartIndex(columns={"labels": np.full(part, part, np.int32)})

build_index("test", {}, [*range(8)], read, index_place(Path(sys.argv[1]), "test"))
"""


@pytest.mark.extended
def test_killed_build_continues(tmp_path: Path) -> None:
    place = index_place(tmp_path, "test")
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    deadline = time.monotonic() + 120
    while len(place.names("parts")) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    read = []

    def remember(part: int) -> PartIndex:
        read.append(part)
        return PartIndex(columns={"labels": np.full(part, part, np.int32)})

    index = build_index("test", {}, [*range(8)], remember, place)
    assert sorted(read) == [4, 5, 6, 7]
    np.testing.assert_array_equal(index.column("labels"), np.repeat(np.arange(8), np.arange(8)))


def test_processes_read_their_own_parts_and_those_of_dead_ones(place: IndexPlace, monkeypatch) -> None:
    monkeypatch.setattr(build_module.jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(build_module.jax, "process_count", lambda: 2)
    monkeypatch.setattr(build_module.processes, "index", lambda: 1)
    monkeypatch.setattr(build_module, "_PATIENCE", 0.1)
    monkeypatch.setattr(build_module, "_LOOK", 0.01)
    index, read = build(place)
    assert read[0] == "b"  # Its own part; the first process never appears.
    assert sorted(read) == ["a", "b", "c"]
    assert len(index) == 5


PROCESS = """
import sys, time
from pathlib import Path
import numpy as np
from transfer_jax.data.index import PartIndex, build, build_index, index_place

folder, own = Path(sys.argv[1]), int(sys.argv[2])
build.jax.distributed.is_initialized = lambda: True
build.jax.process_count = lambda: 2
build.processes.index = lambda: own
build._PATIENCE = 1.0

def read(part):
    time.sleep(0.3)
    with (folder / "read.txt").open("a") as file:
        file.write(f"{own} {part}\\n")
    return PartIndex(columns={"labels": np.full(part, part, np.int32)})

index = build_index("test", {}, [*range(30)], read, index_place(folder, "test"))
assert index.column("labels").tolist() == np.repeat(np.arange(30), np.arange(30)).tolist()
print(index.fingerprint)
"""


@pytest.mark.extended
@pytest.mark.parametrize("killed", [None, 0], ids=["none", "first"])
def test_two_processes_share_the_work(tmp_path: Path, killed: int | None) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, str(own)], **pipes) for own in range(2)]
    log = tmp_path / "read.txt"
    if killed is not None:
        while not (log.is_file() and f"{killed} " in log.read_text()):
            time.sleep(0.02)
        both[killed].kill()
    printed = [each.communicate(timeout=120)[0] for each in both]
    found = {printed[own] for own in range(2) if own != killed}
    assert len(found) == 1
    assert "".join(found).strip()
    lines = log.read_text().split("\n")[:-1]
    parts = [int(line.split()[1]) for line in lines]
    assert {*parts} == {*range(30)}
    if killed is None:
        assert len(parts) == 30  # Each part is read once in all.
        assert all(int(line.split()[1]) % 2 == int(line.split()[0]) for line in lines)
