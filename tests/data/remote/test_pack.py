import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from local_bucket import folder, new_machine

from transfer_jax.data import from_arrays, from_csv, from_folder
from transfer_jax.data.image_files import from_files
from transfer_jax.data.remote import pack as pack_module
from transfer_jax.data.remote.pack import pack
from transfer_jax.data.remote.packed_records import from_records
from transfer_jax.storage.byte_ranges import ChangedObjectError
from transfer_jax.storage.file_lock import InUseError, file_lock
from transfer_jax.storage.range_reads import RangeReader


def contents(dataset):
    """Name, class and content of each image, in the order of the names."""
    found = zip(dataset.names, dataset.labels.tolist(), dataset.contents(range(len(dataset))), strict=True)
    return sorted(found)


@pytest.fixture
def packed(animals, tmp_path) -> Path:
    pack(from_folder(animals), tmp_path / "packed", shards=2)
    return tmp_path / "packed"


def test_records_are_the_images_of_the_folder(animals, packed):
    here, there = from_folder(animals), from_records(packed)
    assert contents(there) == contents(here)
    assert there.class_names == here.class_names
    assert there.sizes is not None
    assert sum(there.sizes) == sum((animals / name).stat().st_size for name in here.names)
    assert (there.held_out, there.test, there.weights, there.groups) == (None, None, None, None)
    assert pickle.loads(pickle.dumps(there)).read(4) == there.read(4)


def test_split_groups_and_weights_stay(tmp_path, tree):
    root = tree("1.png", "2.png", "3.png", "4.png")
    rows = "1.png,a,train,x\n2.png,b,train,y\n3.png,a,val,x\n4.png,b,test,y\n"
    (root / "t.csv").write_text(f"path,label,split,group\n{rows}")
    here = from_csv(root / "t.csv")
    weighted = here.subset(range(4))
    object.__setattr__(weighted, "weights", np.array([1, 2, 3, 4], np.float32))
    pack(weighted, tmp_path / "packed")
    there = from_records(tmp_path / "packed")
    order = np.argsort([*there.names])
    for name in ("labels", "held_out", "test", "groups", "weights"):
        assert getattr(there, name)[order].tolist() == getattr(weighted, name).tolist()


def test_pixels_are_packed_without_loss(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 5, 6, 3)).astype(np.uint8)
    pack(from_arrays(images, [0, 1, 0], ("a", "b")), tmp_path / "packed")
    there = from_records(tmp_path / "packed")
    for position, name in enumerate(there.names):
        np.testing.assert_array_equal(there.image(position), images[int(name.rsplit(maxsplit=1)[-1])])


def test_a_stopped_packing_continues_with_the_missing_shards(animals, tmp_path, monkeypatch):
    dataset, out = from_folder(animals), tmp_path / "packed"
    written, original = [], pack_module._Packing._write_shard

    def fails(self, number):
        if len(written) == 2:
            raise KeyboardInterrupt
        original(self, number)
        written.append(number)

    monkeypatch.setattr(pack_module._Packing, "_write_shard", fails)
    with pytest.raises(KeyboardInterrupt):
        pack(dataset, out, shards=5, threads=1)
    with pytest.raises(ValueError, match="packing is not finished; run the same command again"):
        from_records(out)
    monkeypatch.setattr(pack_module._Packing, "_write_shard", original)
    assert pack(dataset, out) == 3
    assert pack(dataset, out) == 0
    assert contents(from_records(out)) == contents(dataset)


@pytest.mark.extended
def test_a_killed_packing_ends_as_an_undisturbed_one(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "images"
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(300):
            (root / name / f"{i}.png").write_bytes(rng.bytes(20_000))
    program = (
        "import sys, time\n"
        "from transfer_jax.data import from_folder\n"
        "from transfer_jax.data.remote import pack\n"
        "encoded = pack._encoded\n"
        "pack._encoded = lambda content: time.sleep(0.003) or encoded(content)\n"
        "pack.pack(from_folder(sys.argv[1]), sys.argv[2], shards=12, threads=2)\n"
    )
    command = [sys.executable, "-c", program, str(root), str(tmp_path / "killed")]
    process = subprocess.Popen(command)
    while process.poll() is None and len([*(tmp_path / "killed").glob("images-*.array_record")]) < 3:
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert not (tmp_path / "killed/dataset.json").exists()
    subprocess.run(command, check=True)
    pack(from_folder(root), tmp_path / "whole", shards=12)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == names
    for name in names:
        if name.endswith(("record", "json")):
            assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_folder_of_other_images_or_files_is_not_touched(animals, packed, tmp_path):
    other = from_folder(animals).subset([0, 1, 2])
    with pytest.raises(
        ValueError, match="has 5 packed images of another source or version; pack into another"
    ):
        pack(other, packed)
    with pytest.raises(ValueError, match="is packed in 2 shards, not 3"):
        pack(from_folder(animals), packed, shards=3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    with pytest.raises(ValueError, match=r"has other files, such as 'mine.txt'"):
        pack(other, tmp_path / "full")
    assert os.listdir(tmp_path / "full") in ([".lock", "mine.txt"], ["mine.txt", ".lock"])


def test_a_folder_that_is_being_packed_is_an_error(animals, tmp_path):
    with file_lock(tmp_path / "packed/.lock"), pytest.raises(InUseError, match="another process packs into"):
        pack(from_folder(animals), tmp_path / "packed")


def test_an_image_that_is_not_readable_is_named(animals, tmp_path):
    files = [*from_folder(animals).names]
    dataset = from_files([animals / name for name in files], files, [0, 0, 0, 1, 1], ("a", "b"))
    (animals / files[2]).unlink()
    with pytest.raises(ValueError, match=files[2]):
        pack(dataset, tmp_path / "packed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: (path / "images-00001-of-00002.array_record").unlink(),
            "images-00001-of-00002.array_record is missing",
        ),
        (lambda path: (path / "images-00000-of-00002.npz").unlink(), "images-00000-of-00002.npz is missing"),
        (
            lambda path: os.truncate(path / "images-00000-of-00002.array_record", 65_536),
            "is truncated or damaged",
        ),
        (lambda path: (path / "dataset.json").write_text("{"), "dataset.json is damaged"),
        (
            lambda path: (path / "dataset.json").write_text(json.dumps({"version": 9})),
            "has records of version 9, and this package reads version 1",
        ),
    ],
)
def test_a_damaged_folder_is_an_error(packed, change, message):
    change(packed)
    with pytest.raises(ValueError, match=message):
        from_records(packed)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing' does not exist"):
        from_records(tmp_path / "nothing")


def test_a_shard_that_changes_while_it_is_read_is_an_error(packed):
    dataset = from_records(packed)
    dataset.contents([0, 4])
    for path in packed.glob("*.array_record"):
        os.truncate(path, 65_536)
    with pytest.raises(ChangedObjectError, match="start again to index it again"):
        dataset.contents([0])


def test_records_in_a_bucket(animals, tmp_path, monkeypatch):
    new_machine(monkeypatch, tmp_path)
    (tmp_path / "storage/bucket").mkdir(parents=True)
    with folder(tmp_path / "storage", monkeypatch):
        assert pack(from_folder(animals), "gs://bucket/packed", shards=3) == 5
        assert pack(from_folder(animals), "gs://bucket/packed") == 0
        there = from_records("gs://bucket/packed")
        assert contents(there) == contents(from_folder(animals))
        asked, read = [], RangeReader._remote
        monkeypatch.setattr(RangeReader, "_remote", lambda self, each: asked.extend(each) or read(self, each))
        pieces = pickle.loads(pickle.dumps(there.in_pieces().subset([4, 0, 2])))
        assert pieces.contents([0, 1, 2]) == there.contents([4, 0, 2])
        shards = {each.place: each.size for each in asked}
        assert [(each.start, each.stop) for each in asked] == [(0, size) for size in shards.values()]
