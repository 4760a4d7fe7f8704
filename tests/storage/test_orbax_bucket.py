"""Checkpoints that Orbax writes to Google Cloud Storage itself, on a server of it on this machine."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from local_bucket import Bucket, gs, server_fixture

from transfer_jax.storage import remote
from transfer_jax.storage.checkpoints import Checkpoints, CorruptCheckpointError, SavedCheckpoints
from transfer_jax.storage.remote import local_path, pull

pytestmark = [
    pytest.mark.extended,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


server = server_fixture(gs)


@pytest.fixture
def address(server: Bucket, request: pytest.FixtureRequest) -> str:
    """The address of an empty folder in the bucket."""
    return server.address(request.node.name.replace("[", "-").strip("]"))


@pytest.fixture
def machine(address: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Returns the local copy of the folder on a machine with nothing on its disk."""

    def make(root: Path) -> Path:
        monkeypatch.setenv(remote.CACHE, str(root))
        monkeypatch.setattr(remote, "_mirrors", {})
        found = local_path(address)
        pull(found)
        return found

    return make


@pytest.fixture
def folder(machine: Callable[[Path], Path], tmp_path: Path) -> Path:
    return machine(tmp_path / "first")


def arrays(value: float) -> dict[str, jax.Array]:
    return {
        "kernel": jnp.full((64, 64), value, jnp.float32),
        "bias": jnp.full(3, value, jnp.bfloat16),
        "step": jnp.array(7),
    }


def test_steps_are_read_on_another_machine_and_old_ones_are_deleted(
    server, folder, machine, address, tmp_path
):
    saved = SavedCheckpoints(folder, keep=2)
    for step in (1, 2, 3):
        saved.save(step, {"state": arrays(step), "carried": {}}, {"phase": step})
    saved.wait()
    assert not [path for path in folder.rglob("*") if "orbax" in path.parts]
    names = server.system.ls(f"{address}/orbax", detail=False)
    assert sorted(name.rstrip("/")[-1] for name in names) == ["2", "3"]
    there = machine(tmp_path / "second")
    assert sum(path.stat().st_size for path in there.rglob("*") if path.is_file()) < 10_000
    found = Checkpoints(there)
    assert found.numbers() == [3, 2]
    assert found.progress(3) == {"phase": 3}
    assert found.names(3, "state") == {"kernel", "bias", "step"}
    for template in (None, arrays(0.0)):
        for name, array in found.arrays(3, "state", template).items():
            assert array.dtype == arrays(3)[name].dtype
            np.testing.assert_array_equal(array, arrays(3)[name])


def test_the_arrays_may_be_donated_while_they_are_uploaded(folder):
    saved, state = SavedCheckpoints(folder), {"big": jnp.ones((512, 1024))}
    saved.save(1, {"state": state}, {})
    update = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 5 + 1, tree), donate_argnums=0)
    for _ in range(5):
        state = update(state)
    jax.block_until_ready(state)
    saved.wait()
    np.testing.assert_array_equal(saved.arrays(1, "state")["big"], 1.0)


def test_a_step_counts_when_its_record_is_uploaded(
    server, folder, machine, address, tmp_path, monkeypatch, caplog
):
    saved = SavedCheckpoints(folder)
    saved.save(1, {"state": arrays(1)}, {})
    saved.wait()
    with monkeypatch.context() as killed:  # Before it is uploaded.
        killed.setattr("transfer_jax.storage.checkpoints.push", lambda path: None)
        saved.save(2, {"state": arrays(2)}, {})
        saved.wait()
    there = machine(tmp_path / "second")
    assert Checkpoints(there).latest() == 1
    opened = SavedCheckpoints(there)
    assert "deleting the incomplete checkpoint 2" in caplog.text
    assert not server.system.exists(f"{address}/orbax/2")
    np.testing.assert_array_equal(opened.arrays(1, "state")["kernel"], 1.0)


@pytest.mark.parametrize("change", ["bytes", "missing"])
def test_changed_objects_are_an_error(server, folder, address, change):
    saved = SavedCheckpoints(folder)
    saved.save(1, {"state": arrays(1)}, {})
    saved.wait()
    name = max(server.system.find(f"{address}/orbax/1"), key=lambda name: server.system.size(name))
    if change == "bytes":
        content = bytearray(server.system.cat_file(name))
        content[-3] ^= 1
        server.system.pipe_file(name, bytes(content))
    else:
        server.system.rm_file(name)
    with pytest.raises(CorruptCheckpointError, match=f"{address}/orbax/1 is not as it was saved; delete"):
        saved.arrays(1, "state")
