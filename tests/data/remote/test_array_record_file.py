import itertools
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from transfer_jax.data.remote.array_record_file import DamagedRecordsError, chunk_records, read_footer


def written(path: Path, records: list[bytes], options: str) -> bytes:
    writer = ArrayRecordWriter(str(path), options)
    for record in records:
        writer.write(record)
    writer.close()
    return path.read_bytes()


def read(content: bytes) -> list[bytes]:
    offsets, counts = read_footer(lambda start, stop: content[start:stop], len(content))
    chunks = [chunk_records(content[start:stop], start) for start, stop in itertools.pairwise(offsets)]
    assert [len(chunk) for chunk in chunks] == counts.tolist()
    return [record for chunk in chunks for record in chunk]


@pytest.fixture(scope="module")
def records() -> list[bytes]:
    """Small ones, empty ones, and some that are longer than a block."""
    rng = np.random.default_rng(0)
    sizes = [0, 1, 5, 65_500, 65_536, 200_000, 0, *rng.integers(1, 3_000, 60)]
    return [rng.integers(0, 9, size).astype(np.uint8).tobytes() for size in sizes]


@pytest.mark.parametrize(
    "options",
    ["group_size:1,uncompressed", "group_size:1", "group_size:7,uncompressed", "group_size:64,zstd:9"],
)
def test_records_are_those_that_were_written(tmp_path, records, options):
    if "uncompressed" not in options:
        pytest.importorskip("pyarrow")
    assert read(written(tmp_path / "x.array_record", records, options)) == records


def test_a_large_footer_is_read(tmp_path):
    records = [i.to_bytes(3, "little") for i in range(40_000)]
    assert read(written(tmp_path / "x.array_record", records, "group_size:1,uncompressed")) == records


@pytest.mark.parametrize("lost", [1, 65_536, 131_072, 131_073])
def test_a_truncated_file_is_an_error(tmp_path, records, lost):
    content = written(tmp_path / "x.array_record", records, "group_size:1,uncompressed")
    with pytest.raises(DamagedRecordsError):
        read(content[:-lost])


def test_other_files_are_an_error():
    with pytest.raises(DamagedRecordsError, match=r"no complete array_record file|truncated or damaged"):
        read(bytes(1 << 17))


@pytest.mark.parametrize(
    ("options", "message"),
    [("group_size:4,transpose", "transposed"), ("group_size:4,brotli:2", "compressed as 'b'")],
)
def test_kinds_of_chunks_that_are_not_read_are_named(tmp_path, records, options, message):
    with pytest.raises(DamagedRecordsError, match=message):
        read(written(tmp_path / "x.array_record", records, options))
