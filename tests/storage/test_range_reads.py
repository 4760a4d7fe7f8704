"""Byte ranges of objects, in a folder that is used like a bucket and on servers on this machine."""

import pickle
from pathlib import Path

import pytest
from local_bucket import Bucket, folder, gs, s3, server_fixture

from transfer_jax.storage import range_reads
from transfer_jax.storage.byte_ranges import ByteRange, ChangedObjectError, StorageError, local_tag
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.range_reads import RangeReader, connection, version_tag

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
CONTENT = bytes(range(256)) * 400
bucket = server_fixture(folder, s3, gs)


def stored(bucket: Bucket, name: str, content: bytes = CONTENT) -> ByteRange:
    """Writes an object, and returns the range of all its bytes."""
    bucket.system.pipe_file(f"bucket/{name}", content)
    bucket.system.invalidate_cache()
    info = bucket.system.info(f"bucket/{name}")
    return ByteRange(bucket.address(name), 0, info["size"], info["size"], version_tag(bucket.kind, info))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[ByteRange]:
    """The ranges that are read from the bucket."""
    asked, remote = [], RangeReader._remote
    monkeypatch.setattr(RangeReader, "_remote", lambda self, each: asked.extend(each) or remote(self, each))
    return asked


def test_ranges_and_whole_objects_are_read_in_order(bucket):
    whole, other = stored(bucket, "one"), stored(bucket, "two", b"another object")
    wanted = [whole._replace(start=70_000, stop=70_010), other, whole, whole._replace(start=5, stop=5)]
    assert RangeReader().read(wanted) == [CONTENT[70_000:70_010], b"another object", CONTENT, b""]


def test_many_objects_are_read_at_once(bucket):
    wanted = [stored(bucket, f"many/{i}", b"x" * (i + 1)) for i in range(40)]
    assert RangeReader().read(wanted) == [b"x" * (i + 1) for i in range(40)]


def test_neighbours_are_read_in_one_request(bucket, requests):
    whole = stored(bucket, "near")
    wanted = [whole._replace(start=start, stop=start + 50) for start in (4_000, 0, 101_000)]
    assert RangeReader().read(wanted) == [CONTENT[each.start : each.stop] for each in wanted]
    assert [(each.start, each.stop) for each in requests] == [(0, 4_050), (101_000, 101_050)]


def test_what_was_read_is_taken_from_the_cache(bucket, requests, tmp_path):
    whole = stored(bucket, "cached")
    part = whole._replace(start=10, stop=30)
    reader = RangeReader(ObjectCache(tmp_path, 1))
    assert reader.read([part, whole]) == [CONTENT[10:30], CONTENT]
    again = pickle.loads(pickle.dumps(reader))
    assert again.read([whole, part]) == [CONTENT, CONTENT[10:30]]
    assert len(requests) == 1


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize(
    "content", [CONTENT[::-1], CONTENT[:60], CONTENT + b"x"], ids=["other", "shorter", "longer"]
)
def test_a_changed_object_is_an_error(bucket, part, content):
    whole = stored(bucket, "changes")
    stored(bucket, "changes", content)
    wanted = whole._replace(start=50, stop=100) if part else whole
    if bucket.kind == "gs" and len(content) == len(CONTENT) and hasattr(bucket.system, "_call"):
        pytest.skip("the server of Google Cloud Storage has no generations in its answers")
    with pytest.raises(ChangedObjectError, match=r"://bucket/changes .*start again to index it again"):
        RangeReader(pauses=()).read([wanted])


def test_a_deleted_object_is_an_error(bucket):
    gone = stored(bucket, "here")._replace(place=bucket.address("gone"))
    with pytest.raises(ChangedObjectError, match="://bucket/gone is missing"):
        RangeReader().read([gone, stored(bucket, "stays")])


def failing(monkeypatch: pytest.MonkeyPatch, bucket: Bucket, times: int, error: Exception) -> list[str]:
    """Lets the first requests for objects fail, and returns the list of all requests."""
    asked: list[str] = []
    name = {"folder": "_from_any", "s3": "_from_signed_s3", "gs": "_from_gs"}[
        bucket.kind if hasattr(bucket.system, "_call_s3") or hasattr(bucket.system, "_call") else "folder"
    ]
    original = getattr(range_reads, name)

    def fails() -> None:
        asked.append(name)
        if len(asked) <= times:
            raise error

    async def from_server(system, each):
        fails()
        return await original(system, each)

    def from_folder(system, kind, each):
        fails()
        return original(system, kind, each)

    monkeypatch.setattr(range_reads, name, from_folder if name == "_from_any" else from_server)
    return asked


def test_a_failing_connection_is_tried_again(bucket, monkeypatch):
    whole = stored(bucket, "slow")
    asked = failing(monkeypatch, bucket, 2, ConnectionResetError("reset by peer"))
    assert RangeReader(pauses=(0.01, 0.01)).read([whole]) == [CONTENT]
    assert len(asked) == 3


def test_a_connection_that_stays_away_is_an_error_with_the_objects_name(bucket, monkeypatch):
    whole = stored(bucket, "away")
    failing(monkeypatch, bucket, 9, TimeoutError())
    with pytest.raises(StorageError, match=r"://bucket/away is not readable after 3 attempts: TimeoutError"):
        RangeReader(pauses=(0.01, 0.01)).read([whole])


def test_a_missing_permission_is_not_tried_again(bucket, monkeypatch):
    whole = stored(bucket, "secret")
    asked = failing(monkeypatch, bucket, 9, PermissionError("Access Denied"))
    with pytest.raises(StorageError, match=r"no permission to read .*://bucket/secret: Access Denied; log"):
        RangeReader(pauses=(5.0,)).read([whole])
    assert len(asked) == 1


def local(path: Path, content: bytes = CONTENT) -> ByteRange:
    path.write_bytes(content)
    return ByteRange(str(path), 0, len(content), len(content), local_tag(path.stat()))


def test_local_files_are_read_the_same_way(tmp_path):
    whole = local(tmp_path / "shard")
    assert RangeReader().read([whole._replace(start=3, stop=9), whole]) == [CONTENT[3:9], CONTENT]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(b"short"), r"has 5 bytes, and 102,400 in the index"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(CONTENT[::-1]), "was changed after it was indexed"),
    ],
)
def test_a_changed_local_file_is_an_error(tmp_path, change, message):
    whole = local(tmp_path / "shard")
    whole = whole._replace(tag=str(int(whole.tag) - 1))
    change(tmp_path / "shard")
    with pytest.raises(ChangedObjectError, match=message):
        RangeReader().read([whole])


def test_a_missing_package_is_an_error(monkeypatch):
    def missing(kind: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(range_reads.fsspec, "filesystem", missing)
    with pytest.raises(StorageError, match=r"needs Install s3fs .*pip install 'transfer_jax\[remote\]'"):
        connection("s3")
