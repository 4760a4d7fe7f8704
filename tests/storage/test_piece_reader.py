"""Large pieces of objects, in a folder that is used like a bucket."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from local_bucket import Bucket, folder, server_fixture

from transfer_jax.storage import piece_reader
from transfer_jax.storage.byte_ranges import ByteRange
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.piece_reader import PieceReader
from transfer_jax.storage.range_reads import RangeReader, version_tag

CONTENT = bytes(range(256)) * 400
PARTS = [(0, 10), (95, 105), (101_990, 102_400), (50, 250), (7, 7)]


server = server_fixture(folder)


@pytest.fixture
def whole(server: Bucket) -> ByteRange:
    server.system.pipe_file("bucket/object", CONTENT)
    info = server.system.info("bucket/object")
    return ByteRange(server.address("object"), 0, info["size"], info["size"], version_tag(server.kind, info))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are read from the bucket."""
    asked, remote = [], RangeReader._remote

    def recorded(self, ranges):
        asked.extend((each.start, each.stop) for each in ranges)
        return remote(self, ranges)

    monkeypatch.setattr(RangeReader, "_remote", recorded)
    return asked


def parts_of(whole: ByteRange) -> list[ByteRange]:
    return [whole._replace(start=start, stop=stop) for start, stop in PARTS]


EXPECTED = [CONTENT[start:stop] for start, stop in PARTS]


def test_pieces_are_read_once(whole, requests, tmp_path):
    reader = PieceReader(ObjectCache(tmp_path / "cache", 1), piece=100)
    assert reader.read(parts_of(whole)) == EXPECTED
    assert sorted(requests) == [(0, 100), (100, 200), (200, 300), (101_900, 102_000), (102_000, 102_100),
                                (102_100, 102_200), (102_200, 102_300), (102_300, 102_400)]  # fmt: skip
    assert pickle.loads(pickle.dumps(reader)).read(parts_of(whole)) == EXPECTED
    assert len(requests) == 8


def test_threads_wait_for_each_others_pieces(whole, requests, tmp_path):
    readers = [PieceReader(ObjectCache(tmp_path / "cache", 1), piece=100) for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda reader: reader.read(parts_of(whole)), readers)]
    assert found == [EXPECTED] * 8
    assert len(requests) == 8


def test_pieces_that_were_evicted_are_read_again(whole, requests, tmp_path):
    cache = ObjectCache(tmp_path / "cache", 1)
    reader = PieceReader(cache, piece=100)
    reader.read(parts_of(whole))
    for file in (tmp_path / "cache/entries").glob("*/*"):
        file.unlink()
    assert reader.read(parts_of(whole)[:1]) == EXPECTED[:1]
    assert len(requests) == 9


def test_pieces_that_are_not_kept_are_used_all_the_same(whole, tmp_path, monkeypatch):
    cache = ObjectCache(tmp_path / "cache", 1)
    monkeypatch.setattr(ObjectCache, "add", lambda *_: None)
    assert PieceReader(cache, piece=100).read(parts_of(whole)) == EXPECTED


def test_a_small_cache_reads_the_ranges_alone(whole, requests, tmp_path):
    assert PieceReader(ObjectCache(tmp_path / "cache", 0.5)).read(parts_of(whole)[:1]) == EXPECTED[:1]
    assert requests == [(0, 10)]
    assert piece_reader.LEAST_CACHE > 5e8
