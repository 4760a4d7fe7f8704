import dataclasses
import re

import pytest

from transfer_jax.features import CorruptFeaturesError, FeatureKey, Manifest, RowFormat
from transfer_jax.storage.atomic_write import write_atomically

KEY = FeatureKey(weights="w", boundary="top", preprocessing={"image_size": 32}, dtype="float32", dataset="d")
MANIFEST = Manifest(
    key=KEY.to_json(),
    rows=10,
    shard_rows=4,
    row_format=RowFormat.single((2, 3), "float32"),
    files={"shard-00000.npy": "0", "labels.npy": "1"},
    errors={"shard-00000.npy": (0.5, 2.0)},
)
CHANGES = {
    "weights": "v",
    "boundary": "stem",
    "preprocessing": {"image_size": 33},
    "dtype": "bfloat16",
    "dataset": "e",
    "augmentation": {"flip_horizontal": True},
    "views": 2,
    "seed": 1,
    "stored": "int8",
}


def test_every_field_of_a_key_changes_its_digest():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(FeatureKey)}
    digests = {dataclasses.replace(KEY, **{name: value}).digest() for name, value in CHANGES.items()}
    assert len({*digests, KEY.digest()}) == len(CHANGES) + 1


def test_equal_keys_have_equal_digests():
    keys = [
        dataclasses.replace(KEY, preprocessing=dict(items))
        for items in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)])
    ]
    assert keys[0].digest() == keys[1].digest()


def test_manifest_round_trip(tmp_path):
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_missing_manifest_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        Manifest.read(tmp_path)


def test_any_flipped_byte_raises(tmp_path):
    MANIFEST.write(tmp_path)
    path = tmp_path / "manifest.json"
    written = path.read_bytes()
    for index in range(len(written)):
        path.write_bytes(written[:index] + bytes([written[index] ^ 0x01]) + written[index + 1 :])
        with pytest.raises(CorruptFeaturesError, match=re.escape(str(path))):
            Manifest.read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b"\xff\xfe", b'{"content": 1, "sha256": ""}']
)
def test_invalid_manifest_raises(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptFeaturesError, match=r"manifest\.json"):
        Manifest.read(tmp_path)


def test_shards_and_completeness():
    assert MANIFEST.shards() == ["shard-00000.npy", "shard-00001.npy", "shard-00002.npy"]
    assert not MANIFEST.complete()
    names = [*MANIFEST.shards(), "labels.npy"]
    assert dataclasses.replace(MANIFEST, files=dict.fromkeys(names, "")).complete()
    for name in names:
        rest = dict.fromkeys(set(names) - {name}, "")
        assert not dataclasses.replace(MANIFEST, files=rest).complete()


def test_damaged_lists_missing_and_changed_files(tmp_path):
    files = {name: write_atomically(tmp_path / name, lambda file: file.write(b"data")) for name in "abc"}
    manifest = dataclasses.replace(MANIFEST, files=files)
    assert manifest.damaged(tmp_path) == []
    (tmp_path / "a").write_bytes(b"dbta")
    (tmp_path / "c").unlink()
    assert manifest.damaged(tmp_path) == [tmp_path / "a", tmp_path / "c"]


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
