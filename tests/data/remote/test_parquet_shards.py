import json
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transfer_jax.data.decode import BadImageError
from transfer_jax.data.remote import parquet_shards
from transfer_jax.data.remote.parquet_shards import from_parquet_shards
from transfer_jax.storage import object_cache
from transfer_jax.storage.object_cache import ObjectCache

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(object_cache.FOLDER, str(tmp_path / "objects"))


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file as Hugging Face datasets does, with two rows in each row group."""

    def write(
        name: str, images: Sequence[Any], labels: Sequence[Any], names: Sequence[str] | None = ("cat", "dog")
    ) -> Path:
        path = tmp_path / "set" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        values = [each if isinstance(each, dict) else {"bytes": each, "path": None} for each in images]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(values, kind), "label": labels, "id": list(range(len(labels)))})
        if names is not None:
            features = {"image": {"_type": "Image"}, "label": {"names": [*names], "_type": "ClassLabel"}}
            info = json.dumps({"info": {"features": features}})
            table = table.replace_schema_metadata({"huggingface": info})
        pq.write_table(table, path, row_group_size=2)
        return path

    return write


def images(text: str) -> list[bytes]:
    return [f"image {letter}".encode() * 50 for letter in text]


def test_images_and_labels_of_all_files_are_read(shard, tmp_path):
    shard("data/train-00000.parquet", images("abc"), [0, 1, 1])
    shard("data/train-00001.parquet", images("de"), [0, 0])
    for pattern in (
        tmp_path / "set",
        tmp_path / "set/data",
        f"{tmp_path}/set/data/train-{{00000..00001}}.parquet",
    ):
        dataset = from_parquet_shards(pattern)
        assert dataset.class_names == ("cat", "dog")
        assert dataset.labels.tolist() == [0, 1, 1, 0, 0]
        assert dataset.contents([4, 0, 2]) == [images("e")[0], images("a")[0], images("c")[0]]
    assert pickle.loads(pickle.dumps(dataset)).read(3) == images("d")[0]
    assert dataset.names[4].endswith(" 4")


def test_a_row_group_is_read_once(shard, tmp_path, monkeypatch):
    shard("a.parquet", images("abcdef"), [0, 1] * 3)
    dataset = from_parquet_shards(tmp_path / "set")
    read, original = [], parquet_shards.RowGroupImages._read
    monkeypatch.setattr(
        parquet_shards.RowGroupImages,
        "_read",
        lambda self, shard, group: read.append(group) or original(self, shard, group),
    )
    monkeypatch.setattr(parquet_shards, "_GROUPS", 1)
    for position in (0, 3, 1, 2, 5, 0):
        dataset.read(position)
    assert read == [0, 1, 2]


def test_files_that_do_not_fit_into_the_cache_are_noted_with_the_size_to_choose(shard, tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        shard(f"{name}.parquet", [rng.bytes(40_000) for _ in range(5)], [0, 1, 0, 1, 0])
    assert from_parquet_shards(tmp_path / "set").notes == ()
    (note,) = from_parquet_shards(tmp_path / "set", cache=ObjectCache(gigabytes=1e-4)).notes
    assert re.match(
        r"0.0004\d\d GB of Parquet files do not fit into the cache of 0.0001 GB; in a random", note
    )
    assert "with a row group of up to 2 images: set --object-gigabytes 0.00041, or pack them: " in note
    assert note.endswith(f"transfer-jax pack parquet:{tmp_path}/set OUT")
    enough = ObjectCache(gigabytes=0.00041)
    assert from_parquet_shards(tmp_path / "set", cache=enough).notes == ()


def test_blocks_need_less_of_the_cache(shard, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_shards, "BLOCK", 1)
    monkeypatch.setattr(parquet_shards, "WINDOW", 1)
    shard("a.parquet", [bytes([i]) * 40_000 for i in range(12)], [0, 1] * 6)
    (note,) = from_parquet_shards(tmp_path / "set", cache=ObjectCache(gigabytes=1e-6)).notes
    size = (tmp_path / "set/a.parquet").stat().st_size
    (choice,) = re.findall(r"--order blocks and --object-gigabytes ([\d.]+) or more", note)
    assert float(choice) * 1e9 == pytest.approx(5 * size / 12, rel=0.1)


def test_labels_without_metadata_are_classes(shard, tmp_path):
    shard("a.parquet", images("abc"), ["x", "y", "x"], None)
    dataset = from_parquet_shards(tmp_path / "set")
    assert (dataset.class_names, dataset.labels.tolist()) == (("x", "y"), [0, 1, 0])
    assert from_parquet_shards(tmp_path / "set", label="id").class_names == ("0", "1", "2")


def test_files_are_parts_of_a_split_by_their_names(shard, tmp_path):
    shard("data/train-0.parquet", images("ab"), [0, 1])
    shard("data/validation-0.parquet", images("cd"), [0, 1])
    held_out = from_parquet_shards(tmp_path / "set").held_out
    assert held_out is not None
    np.testing.assert_array_equal(held_out, [False, False, True, True])


def test_images_in_files_beside_are_read(shard, tmp_path):
    path = shard(
        "a.parquet", [{"bytes": None, "path": "one.png"}, {"bytes": None, "path": "two.png"}], [0, 1]
    )
    (path.parent / "one.png").write_bytes(b"one")
    first, second = from_parquet_shards(path).contents([0, 1])
    assert first == b"one"
    assert isinstance(second, BadImageError)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, 7], {}, "the labels of 1 image of '.*set' are not among the 2 classes 'cat', 'dog': '7'"),
        ([0, None], {}, "has 1 row without a label"),
        ([0, 1], {"label": "kind"}, "has no column 'kind'; its columns are 'image', 'label', 'id'"),
        ([0, 1], {"classes": ["a"]}, "the labels of 1 image of '.*set' are not among the 1 class 'a': '1'"),
    ],
)
def test_sets_that_are_not_usable_are_errors(shard, tmp_path, labels, options, message):
    shard("a.parquet", images("ab"), labels)
    with pytest.raises(ValueError, match=message):
        from_parquet_shards(tmp_path / "set", **options)


def test_a_truncated_file_is_an_error(shard):
    path = shard("a.parquet", images("ab"), [0, 1])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a.parquet is truncated or no Parquet file"):
        from_parquet_shards(path)


def test_columns_that_are_no_images_are_named(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has no column of images; choose one of 'text', 'label'"):
        from_parquet_shards(tmp_path / "a.parquet")


def test_requests_of_images_are_those_of_their_row_groups(shard, tmp_path, monkeypatch):
    shard("a.parquet", images("abcdef"), [0, 1] * 3)
    shard("b.parquet", images("gh"), [0, 1])
    dataset = from_parquet_shards(tmp_path / "set")
    assert dataset.requests([0, 1]) is None
    monkeypatch.setattr(parquet_shards, "is_remote", lambda place: True)
    sizes = [(tmp_path / f"set/{name}.parquet").stat().st_size for name in "ab"]
    asked = dataset.requests([1, 0, 4, 5, 4, 7])
    assert asked is not None
    assert [Path(each.place).name for each in asked] == ["a.parquet", "a.parquet", "b.parquet"]
    assert [each.stop - each.start for each in asked] == pytest.approx(
        [sizes[0] / 3, sizes[0] / 3, sizes[1]], abs=1
    )
