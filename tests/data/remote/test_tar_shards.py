import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.data.remote.tar_shards import from_tar_shards
from transfer_jax.storage.byte_ranges import ChangedObjectError


@pytest.fixture
def shard(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tar file of names and contents."""

    def write(name: str, files: dict[str, bytes]) -> Path:
        path = tmp_path / "set" / name
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for member, content in files.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write


def examples(names: str, label: Callable[[int], bytes] = lambda i: str(i % 2).encode()) -> dict[str, bytes]:
    files = {}
    for i, name in enumerate(names):
        files[f"{name}.jpg"] = f"image {name}".encode() * 100
        files[f"{name}.cls"] = label(i)
    return files


def test_images_and_labels_of_all_shards_are_read(shard, tmp_path):
    shard("x-000.tar", examples("abc"))
    shard("x-001.tar", examples("de"))
    for pattern in (tmp_path / "set", f"{tmp_path}/set/x-{{000..001}}.tar", f"{tmp_path}/set/x-*.tar"):
        dataset = from_tar_shards(pattern)
        assert [*dataset.names] == [*"abcde"]
        assert dataset.class_names == ("0", "1")
        np.testing.assert_array_equal(dataset.labels, [0, 1, 0, 0, 1])
        assert dataset.contents([4, 0]) == [b"image e" * 100, b"image a" * 100]
    assert pickle.loads(pickle.dumps(dataset)).read(3) == b"image d" * 100


def test_labels_are_names_or_values_in_json(shard, tmp_path):
    shard(
        "a.tar",
        {"1.png": b"x", "1.json": json.dumps({"label": "dog"}).encode(), "2.png": b"y", "2.cls": b"cat\n"},
    )
    assert from_tar_shards(tmp_path / "set").class_names == ("cat", "dog")
    shard("a.tar", {"1.png": b"x", "1.json": b'{"kind": 3, "label": 0}', "1.seg.png": b"mask"})
    dataset = from_tar_shards(tmp_path / "set", label="kind", classes=["a", "b", "c", "d"])
    assert dataset.labels.tolist() == [3]
    assert dataset.read(0) == b"x"


def test_folders_and_long_names_in_a_shard_are_read(shard, tmp_path):
    name = "deep/" * 30 + "n" * 120
    shard(
        "a.tar", {f"{name}/1.jpg": b"x", f"{name}/1.cls": b"1", "1.jpg": b"y", "1.cls": b"0", "readme": b"?"}
    )
    dataset = from_tar_shards(tmp_path / "set")
    assert [*dataset.names] == [f"{name}/1", "1"]
    assert dataset.contents([0, 1]) == [b"x", b"y"]


def test_shards_are_parts_of_a_split_by_their_names(shard, tmp_path):
    for part in ("train", "val", "test"):
        shard(f"imagenet1k-{part}-00.tar", examples("ab"))
    dataset = from_tar_shards(tmp_path / "set")
    assert dataset.held_out is not None
    assert dataset.test is not None
    assert [dataset.test.tolist(), dataset.held_out.tolist()] == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    assert from_tar_shards(f"{tmp_path}/set/*val*.tar").held_out is None


def test_examples_without_an_image_are_left_out(shard, tmp_path):
    shard("a.tar", {**examples("ab"), "c.cls": b"0"})
    dataset = from_tar_shards(tmp_path / "set")
    assert (len(dataset), dataset.notes) == (2, ("examples left out: 1 without an image",))


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"a.jpg": b"x", "b.jpg": b"y"},
            {},
            r"2 images of .*a.tar without a label, in a .cls or .json file: 'a', 'b'",
        ),
        ({"a.jpg": b"x", "a.cls": b"1"}, {"label": "kind"}, None),
        (
            {"a.jpg": b"x", "a.json": b"{}"},
            {"label": "kind"},
            r"without a label, 'kind': 'a'; name it with \?label=",
        ),
        ({"a.txt": b"x"}, {}, "the shards of '.*' have no images with labels"),
        (
            examples("abc", lambda i: b"7"),
            {"classes": ["x", "y"]},
            "the labels of 3 images of '.*' are not among the 2 classes",
        ),
        (examples("a", lambda i: b"zebra"), {"classes": ["x", "y"]}, "among the 2 classes 'x', 'y': 'zebra'"),
    ],
)
def test_sets_that_are_not_usable_are_errors(shard, tmp_path, files, options, message):
    shard("a.tar", files)
    if message is None:
        assert len(from_tar_shards(tmp_path / "set", **options)) == 1
        return
    with pytest.raises(ValueError, match=message):
        from_tar_shards(tmp_path / "set", **options)


@pytest.mark.parametrize("lost", [10_240, 10_300, 13_000, 20_470])
def test_a_truncated_shard_is_an_error_and_no_index_remains(shard, tmp_path, lost):
    path = shard("a.tar", examples("abcd"))
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(ValueError, match=r"a.tar is truncated or no tar file"):
        from_tar_shards(path)
    assert not [*path.parent.rglob("index.json")]


def test_data_after_the_end_of_a_shard_are_an_error(shard):
    path = shard("a.tar", examples("ab"))
    path.write_bytes(path.read_bytes() + shard("b.tar", examples("cd")).read_bytes())
    with pytest.raises(ValueError, match=r"a.tar .* \(data follow its end at byte 5,120, as in tar files"):
        from_tar_shards(path)


def test_a_changed_shard_is_an_error_until_it_is_indexed_again(shard, tmp_path):
    path = shard("a.tar", examples("abcd"))
    dataset = from_tar_shards(path)
    shard("a.tar", examples("wxyz" * 9))
    with pytest.raises(ChangedObjectError, match=r"a.tar .* start again to index it again"):
        dataset.contents([0])
    assert from_tar_shards(path).contents([0]) == [b"image w" * 100]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("set/x-{000..003}.tar", r"no shard at '.*x-002.tar' and 1 more"),
        ("set/y-*.tar", r"no shard at '.*y-\*.tar'; expected files that end in .tar"),
        ("set/x-{5..2}.tar", "has no numbers: the first one is larger"),
    ],
)
def test_missing_shards_are_named(shard, tmp_path, pattern, message):
    shard("x-000.tar", examples("a"))
    shard("x-001.tar", examples("b"))
    with pytest.raises(ValueError, match=message):
        from_tar_shards(tmp_path / pattern)
