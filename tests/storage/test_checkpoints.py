import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.storage import checkpoints as module
from transfer_jax.storage.checkpoints import Checkpoints, CorruptCheckpointError, SavedCheckpoints

TREE = {
    "backbone/blocks.1/conv/kernel": jnp.arange(12.0).reshape(3, 4) / 7,
    ".opt_state[0].mu['head/kernel']": jnp.array([1.001, -0.0, jnp.inf], jnp.bfloat16),
    ".step": jnp.array(2**30, jnp.int32),
}
PROGRESS = {"phase": 1, "data": {"next_index": 7}, "results": [{"name": "head", "loss": 0.25}], "none": None}


@pytest.fixture
def opened(tmp_path):
    """Opens the checkpoints of the test's folder."""
    return lambda **options: SavedCheckpoints(tmp_path, **options)


def test_arrays_and_progress_come_back_exactly(opened):
    store = opened()
    assert store.latest() is None
    store.save(7, {"state": TREE, "carried": {}}, PROGRESS)
    store = opened()
    assert store.latest() == 7
    assert store.progress(7) == PROGRESS
    assert store.arrays(7, "carried", {}) == {}
    template = {path: jnp.zeros_like(array) for path, array in TREE.items()}
    for path, array in store.arrays(7, "state", template).items():
        assert array.dtype == TREE[path].dtype
        assert array.shape == TREE[path].shape
        assert np.asarray(array).tobytes() == np.asarray(TREE[path]).tobytes()


@pytest.mark.extended
def test_arrays_of_other_devices_are_read_whole(opened, tmp_path):
    """Saved by four devices that share an array, read by one that knows nothing of it."""
    program = f"""
import pathlib
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from transfer_jax.storage.checkpoints import SavedCheckpoints

mesh = jax.make_mesh((4,), ("data",))
shared = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("data")))
SavedCheckpoints(pathlib.Path({str(tmp_path)!r})).save(1, {{"state": {{"x": shared}}, "none": {{}}}}, {{}})
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **flags})
    assert list(opened().arrays(1, "state")) == ["x"]
    np.testing.assert_array_equal(opened().arrays(1, "state")["x"], np.arange(8.0))
    assert opened().arrays(1, "none") == {}


def test_the_newest_are_kept_and_a_step_can_be_saved_again(opened, tmp_path):
    store = opened(keep=2)
    for step in (1, 5, 9):
        store.save(step, {"state": {"x": jnp.full(3, step)}}, {"step": step})
    store.save(9, {"state": {"x": jnp.full(3, 10)}}, {"step": 10})
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["5", "9"]
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == ["5.json", "9.json"]
    store = opened()
    assert store.latest() == 9
    assert store.progress(9) == {"step": 10}
    np.testing.assert_array_equal(store.arrays(9, "state", {"x": jnp.zeros(3, int)})["x"], [10, 10, 10])
    np.testing.assert_array_equal(store.arrays(5, "state", {"x": jnp.zeros(3, int)})["x"], [5, 5, 5])


def test_a_flipped_byte_in_any_file_is_found_and_named(opened, tmp_path):
    store = opened()
    store.save(3, {"state": TREE, "carried": {"x": jnp.ones(4)}}, PROGRESS)
    files = [path for path in (tmp_path / "steps" / "3").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 10
    for path in files:
        written = path.read_bytes()
        path.write_bytes(written[:-1] + bytes([written[-1] ^ 0x01]))
        for read in (store.progress, lambda step: store.arrays(step, "state", TREE)):
            with pytest.raises(
                CorruptCheckpointError, match=r"does not match its checksum; delete .*/3 to"
            ) as error:
                read(3)
            assert str(path) in str(error.value)
        path.write_bytes(written)
    assert store.progress(3) == PROGRESS


def test_missing_files_are_named(opened, tmp_path):
    store = opened()
    store.save(3, {"state": TREE}, PROGRESS)
    path = tmp_path / "steps" / "3" / "state" / "_METADATA"
    path.unlink()
    with pytest.raises(CorruptCheckpointError, match=str(path)):
        store.arrays(3, "state", TREE)


FOREIGN = (".DS_Store", "._state", "Thumbs.db", "desktop.ini", ".nfs000012", "@eaDir/x@SynoEAStream", "x~")


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("place", ["steps", "records", "steps/3", "steps/3/state", "steps/3/state/d"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_foreign_files_are_ignored_and_remain(opened, tmp_path, caplog, place, when):
    """They appear and vanish: a checksum of one would make the checkpoint invalid later."""
    store = opened()
    store.save(3, {"state": TREE}, PROGRESS)
    names = FOREIGN if when == "before" else (*FOREIGN, "notes.txt")
    foreign = [tmp_path / place / name for name in names]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\0\1")
    shutil.copytree(tmp_path / "steps" / "3", tmp_path / "steps" / "3 (copy)")
    shutil.copytree(tmp_path / "steps" / "3", tmp_path / "steps" / "backup")
    if when == "before":
        record = tmp_path / "records" / "3.json"
        content = json.loads(record.read_bytes())
        content["sha256"] |= module.file_hashes(tmp_path / "steps" / "3")
        record.write_text(json.dumps(content))
    before = tree_of(tmp_path)
    store = opened()
    assert tree_of(tmp_path) == before
    if when == "before":
        for path in foreign:
            path.unlink()
    with caplog.at_level(logging.WARNING):
        for reader in (store, Checkpoints(tmp_path)):
            assert reader.latest() == 3
            assert reader.progress(3) == PROGRESS
            assert reader.names(3, "state") == TREE.keys()
            np.testing.assert_array_equal(reader.arrays(3, "state")[".step"], TREE[".step"])
    assert caplog.records == []
    store.save(4, {"state": TREE}, PROGRESS)
    assert opened().latest() == 4


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_damaged_records_are_named(opened, tmp_path, content):
    store = opened()
    store.save(3, {"state": TREE}, PROGRESS)
    (tmp_path / "records" / "3.json").write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=r"records/3\.json is damaged"):
        store.progress(3)


def test_reading_creates_and_deletes_nothing(opened, tmp_path):
    assert Checkpoints(tmp_path / "missing").latest() is None
    assert Checkpoints(tmp_path / "missing").read_newest(lambda step: pytest.fail("called")) is None
    assert list(tmp_path.iterdir()) == []
    store = opened()
    for step in (1, 2):
        store.save(step, {"state": TREE}, {"step": step})
    (tmp_path / "records" / "2.json").unlink()
    shutil.copytree(tmp_path / "steps" / "1", tmp_path / "steps" / "3.orbax-checkpoint-tmp")
    before = tree_of(tmp_path)
    reader = Checkpoints(tmp_path)
    assert reader.latest() == 1
    assert reader.progress(1) == {"step": 1}
    assert tree_of(tmp_path) == before


def test_a_reader_gets_a_newer_step_if_the_run_deletes_the_one_it_reads(opened):
    store = opened(keep=1)
    store.save(1, {"state": {"x": jnp.full(3, 1)}}, {"step": 1})
    reader, calls = Checkpoints(store._steps.parent), []

    def read(step: int) -> tuple[dict, np.ndarray]:
        calls.append(step)
        progress = reader.progress(step)
        if step == 1:  # Now the run saves.
            store.save(2, {"state": {"x": jnp.full(3, 2)}}, {"step": 2})
        return progress, np.asarray(reader.arrays(step, "state")["x"])

    found = reader.read_newest(read)
    assert found is not None
    assert found[0] == {"step": 2}
    np.testing.assert_array_equal(found[1], [2, 2, 2])
    assert calls == [1, 2]


def test_errors_of_a_step_that_is_still_there_are_raised_to_readers(opened):
    store = opened()
    store.save(1, {"state": TREE}, {"step": 1})
    next(path for path in (store._steps / "1").rglob("*") if path.is_file() and path.stat().st_size).unlink()
    reader = Checkpoints(store._steps.parent)
    with pytest.raises(CorruptCheckpointError):
        reader.read_newest(reader.progress)


@pytest.mark.parametrize("words", ["No space left on device", "Disk quota exceeded"])
def test_a_full_disk_is_named_and_earlier_checkpoints_remain(opened, monkeypatch, caplog, words):
    store = opened()
    store.save(1, {"state": TREE}, {"step": 1})

    class Full:
        def save_checkpointables(self, folder, content, overwrite):
            logging.getLogger("absl").error("Orbax logs the traceback")
            raise ValueError(f"RESOURCE_EXHAUSTED: writing failed: {words} [source locations=…]")

    monkeypatch.setattr(module, "orbax", Full)
    with pytest.raises(OSError, match=words) as error:
        store.save(2, {"state": TREE}, {"step": 2})
    assert error.value.filename == str(store._steps / "2")
    assert "traceback" not in caplog.text
    monkeypatch.undo()
    assert opened().progress(1) == {"step": 1}
    assert opened().latest() == 1


def test_a_step_without_a_record_is_removed(opened, tmp_path, caplog):
    store = opened()
    for step in (1, 2):
        store.save(step, {"state": TREE}, {"step": step})
    (tmp_path / "records" / "2.json").unlink()
    with caplog.at_level(logging.WARNING, "transfer_jax"):
        store = opened()
    assert store.latest() == 1
    assert store.progress(1) == {"step": 1}
    assert not (tmp_path / "steps" / "2").exists()
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("transfer_jax")]
    assert message == f"deleting the incomplete checkpoint {tmp_path / 'steps' / '2'}"


def test_remains_of_a_killed_orbax_are_deleted(opened, tmp_path):
    store = opened()
    store.save(1, {"state": TREE}, {"step": 1})
    shutil.copytree(tmp_path / "steps" / "1", tmp_path / "steps" / "2.orbax-checkpoint-tmp")
    store = opened()
    assert store.latest() == 1
    store.save(2, {"state": TREE}, {"step": 2})
    assert opened().progress(2) == {"step": 2}


def test_a_save_again_that_is_cut_off_does_not_keep_the_old_record(opened, monkeypatch):
    store = opened()
    for step in (1, 2):
        store.save(step, {"state": TREE}, {"step": step})

    def killed(*args) -> dict:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "file_hashes", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save(2, {"state": TREE}, {"step": "again"})
    monkeypatch.undo()
    store = opened()
    assert store.latest() == 1
    assert store.progress(1) == {"step": 1}
