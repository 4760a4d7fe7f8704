"""Failures of object storage: each is one clear line, and leaves nothing that is half-written."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_bucket import failing_s3, new_machine
from s3_server import Fault, Server

from transfer_jax.data import from_folder, load_dataset
from transfer_jax.data.remote import pack
from transfer_jax.storage import range_reads
from transfer_jax.storage.byte_ranges import ChangedObjectError, StorageError

pytestmark = pytest.mark.extended
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
SOURCES = {
    "folder": "s3://bucket/folder",
    "table": "csv:s3://bucket/table/t.csv",
    "tar": "wds:s3://bucket/tar",
    "parquet": "parquet:s3://bucket/parquet",
    "records": "records:s3://bucket/records",
}
DATA = {
    "folder": "cat/0.png",
    "table": "0.png",
    "tar": "0.tar",
    "parquet": "0.parquet",
    "records": "images-00000-of-00002.array_record",
}
"""An object of each source with images."""
KINDS = pytest.mark.parametrize("kind", SOURCES)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        pytest.MonkeyPatch.context() as patch,
        failing_s3(tmp_path_factory.mktemp("buckets"), patch) as server,
    ):
        yield server


@pytest.fixture
def server(running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose bucket has no objects, asked by a machine with empty caches."""
    running.root = tmp_path / "buckets"
    running.listings.clear()
    new_machine(monkeypatch, tmp_path)
    monkeypatch.setattr(range_reads, "_PAUSES", (0.01, 0.01))
    yield running
    running.look = lambda method, name: None


@pytest.fixture
def make(server: Server, tmp_path: Path) -> Callable[[str], Path]:
    """Writes a source into the bucket."""
    bucket = server.root / "bucket"

    def write(kind: str) -> Path:
        folder = bucket / kind
        images = {
            f"{name}/{i}.png": f"image {name} {i}".encode() * 20 for name in ("cat", "dog") for i in "01"
        }
        if kind in ("folder", "records"):
            root = folder if kind == "folder" else tmp_path / "images"
            for name, content in images.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(content)
            if kind == "records":
                pack.pack(from_folder(root), folder, shards=2)
            return folder
        folder.mkdir(parents=True)
        if kind == "table":
            for i in range(4):
                (folder / f"{i}.png").write_bytes(b"image" * 20)
            (folder / "t.csv").write_text("path,label\n0.png,x\n1.png,y\n2.png,x\n3.png,y\n")
        for shard in range(2) if kind in ("tar", "parquet") else ():
            (write_tar if kind == "tar" else write_parquet)(folder / f"{shard}.{kind}", [*images.values()])
        return folder

    return write


def write_tar(path: Path, images: list[bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for i, image in enumerate(images):
            for ending, content in (("png", image), ("cls", b"01"[i % 2 : i % 2 + 1])):
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_parquet(path: Path, images: list[bytes]) -> None:
    labels = [i % 2 for i in range(len(images))]
    pq.write_table(pa.table({"image": pa.array(images, pa.binary()), "label": labels}), path)


def complete_indexes(server: Server) -> list[Path]:
    return [*server.root.rglob("index.json")]


def read(kind: str, options: str = "") -> list:
    dataset = load_dataset(SOURCES[kind] + options)
    return dataset.contents(range(len(dataset)))


@KINDS
@pytest.mark.parametrize(
    "requests", [{"LIST"}, {"GET", "HEAD"}, {"LIST", "GET", "HEAD"}], ids=lambda each: "+".join(sorted(each))
)
def test_no_permission_to_read(server, make, kind, requests):
    make(kind)
    server.look = lambda method, name: Fault(status=403) if method in requests else None
    with pytest.raises(
        StorageError, match=rf"^no permission to read s3://bucket/{kind}\b.*: Forbidden; log in"
    ):
        read(kind)
    assert not complete_indexes(server)


@KINDS
def test_no_permission_to_write_the_index(server, make, kind):
    make(kind)
    server.look = lambda method, name: Fault(status=403) if method in ("PUT", "POST") else None
    assert read(kind) == read(kind)
    assert not complete_indexes(server)


@KINDS
def test_permission_that_ends(server, make, kind):
    make(kind)
    dataset = load_dataset(SOURCES[kind])
    server.look = lambda method, name: Fault(status=403) if method == "GET" else None
    with pytest.raises(StorageError, match=rf"no permission to read s3://bucket/{kind}/[\w./-]+: Forbidden"):
        dataset.contents([0])


def fails(method: str, times: int, fault: Fault) -> Callable[[str, str], Fault | None]:
    """Lets the first requests of each object fail."""
    asked: dict[str, int] = {}

    def look(found: str, name: str) -> Fault | None:
        if found != method or "index.json" in name:
            return None
        asked[name] = asked.get(name, 0) + 1
        return fault if asked[name] <= times else None

    return look


@KINDS
@pytest.mark.parametrize("fault", [Fault(sent=9), Fault(seconds=1.5)], ids=["cut", "slow"])
def test_a_failing_connection_is_tried_again(server, make, kind, fault, monkeypatch):
    make(kind)
    expected = read(kind)
    monkeypatch.setattr(range_reads, "_SECONDS", 0.8)
    new_machine(monkeypatch, server.root.parent / "other")
    for place in complete_indexes(server):
        place.unlink()
    server.listings.clear()
    server.look = fails("GET", 1, fault)
    assert read(kind) == expected
    server.look = fails("GET", 99, Fault(sent=9))
    new_machine(monkeypatch, server.root.parent / "third")
    with pytest.raises(StorageError, match=rf"^s3://bucket/{kind}/\S+ is not readable after 3 attempts: \w"):
        read(kind)


@KINDS
@pytest.mark.parametrize("change", ["truncated", "replaced", "deleted"])
def test_an_object_that_is_not_the_indexed_one(server, make, kind, change):
    make(kind)
    dataset = load_dataset(SOURCES[kind])
    file = server.root / "bucket" / kind / DATA[kind]
    content = file.read_bytes()
    file.unlink()
    if change != "deleted":
        file.write_bytes(content[: len(content) // 2] if change == "truncated" else content[::-1])
    server.listings.clear()
    listed = kind in ("folder", "table")
    advice = f"delete s3://bucket/{kind}/.transfer_jax_index" if listed else "start again to index it again"
    with pytest.raises(ChangedObjectError, match=rf"s3://bucket/{kind}/{DATA[kind]} (is|has) .*{advice}"):
        dataset.contents(range(len(dataset)))
    if change != "deleted" and not listed:  # A later start looks at all shards.
        with pytest.raises(ValueError, match=rf"{DATA[kind]} is truncated or .*copy it again"):
            read(kind)


@KINDS
def test_an_index_of_another_version_is_made_again(server, make, kind, monkeypatch):
    make(kind)
    expected = read(kind)
    (index,) = complete_indexes(server)
    index.write_text(json.dumps({**json.loads(index.read_text()), "version": 99}))
    new_machine(monkeypatch, server.root.parent / "other")
    assert read(kind) == expected
    assert json.loads(index.read_text())["version"] == 1


@pytest.mark.parametrize(
    ("kind", "empty", "options", "message"),
    [
        ("tar", True, "", "the shards of 's3://bucket/tar' have no images with labels"),
        ("parquet", True, "", "the shards of 's3://bucket/parquet' have no images with labels"),
        (
            "tar",
            False,
            "?classes=one",
            "labels of 4 images of 's3://bucket/tar' are not among the 1 class 'one'",
        ),
        ("parquet", False, "?classes=one", "of 's3://bucket/parquet' are not among the 1 class 'one': '1'"),
    ],
)
def test_sources_that_are_not_usable_leave_nothing(server, make, kind, empty, options, message):
    folder = make(kind)
    for shard in sorted(folder.iterdir()) if empty else ():
        (write_tar if kind == "tar" else write_parquet)(shard, [])
    with pytest.raises(ValueError, match=message):
        read(kind, options)
    assert not [file for file in folder.rglob("*") if file.is_file() and file.parent != folder]


def test_packing_without_permission_to_write(server, tmp_path, make):
    dataset = from_folder(make("folder"))
    server.look = lambda method, name: Fault(status=403) if name.endswith("record") else None
    with pytest.raises(
        OSError, match=r"^s3://bucket/packed/images-0000.-of-00002.array_record is not writable"
    ):
        pack.pack(dataset, "s3://bucket/packed", shards=2)
    assert "dataset.json" not in os.listdir(server.root / "bucket/packed")
    server.look = lambda method, name: None
    assert pack.pack(dataset, "s3://bucket/packed") == 4
