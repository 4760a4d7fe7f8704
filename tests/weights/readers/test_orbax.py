import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from transfer_jax.weights.readers import CheckpointError, read_weights

ocp = pytest.importorskip("orbax.checkpoint", reason="orbax is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

TREE = {
    "stem": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)},
    "layers": [jnp.zeros(2, jnp.int32), jnp.ones((2, 1))],
}
KEYS = {"stem/kernel", "stem/bias", "layers/0", "layers/1"}


def save(folder, tree, **options):
    ocp.PyTreeCheckpointer(**options).save(folder, tree)
    return folder


def check(weights):
    assert set(weights) == KEYS
    np.testing.assert_array_equal(weights["stem/kernel"], TREE["stem"]["kernel"])
    assert weights["stem/bias"].dtype == jnp.bfloat16
    assert weights.infos["layers/1"].shape == (2, 1)
    assert not weights["layers/0"].flags.writeable


@pytest.mark.parametrize("together", [True, False])
def test_arrays(tmp_path, together):
    check(read_weights(save(tmp_path / "c", TREE, use_ocdbt=together)))


def test_the_newest_interface(tmp_path):
    from orbax.checkpoint import v1

    v1.save(tmp_path / "c", TREE)
    check(read_weights(tmp_path / "c"))
    check(read_weights(tmp_path / "c", "orbax"))


def test_parameters_are_found_among_the_rest(tmp_path):
    check(read_weights(save(tmp_path / "c", {"params": TREE, "opt_state": {"mu": jnp.zeros(3)}, "step": 3})))


def test_variables_of_nnx(tmp_path):
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    weights = read_weights(save(tmp_path / "c", state))
    assert {key: info.shape for key, info in weights.infos.items()} == {"bias": (3,), "kernel": (2, 3)}


def changed(folder, change):
    path = folder / "_METADATA"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def rename(metadata, name):
    for entry in metadata["tree_metadata"].values():
        entry["key_metadata"][-1]["key"] = name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: rename(metadata, "../../secret"), "invalid name of an array"),
        (lambda metadata: rename(metadata, ".."), "invalid name of an array"),
        (lambda metadata: rename(metadata, None), "invalid name of an array"),
        (lambda metadata: rename(metadata, "gone"), "opening array .* failed"),
        (lambda metadata: metadata.pop("tree_metadata"), "has no tree_metadata"),
        (lambda metadata: metadata.update(tree_metadata={}), "holds no arrays"),
        (lambda metadata: metadata.update(tree_metadata={"a": 3}), "invalid description of an array"),
        (lambda metadata: metadata.update(use_zarr3=True), "opening array .* failed"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_metadata_is_checked(tmp_path, change, message, together):
    folder = save(tmp_path / "c", {"stem": {"kernel": jnp.ones(3)}}, use_ocdbt=together)
    changed(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(folder)
    assert "\n" not in str(caught.value)


def test_arrays_that_would_grow_without_measure(tmp_path):
    folder = save(tmp_path / "c", {"kernel": jnp.ones(3)}, use_ocdbt=False)
    path = folder / "kernel" / ".zarray"
    described = json.loads(path.read_text())
    for field in ("shape", "chunks"):
        path.write_text(json.dumps({**described, field: [10**12]}))
        with pytest.raises(CheckpointError, match=r"too many for a folder of its size|opening array"):
            read_weights(folder)


def test_an_array_that_is_gone(tmp_path):
    folder = save(tmp_path / "c", {"kernel": jnp.ones(3)}, use_ocdbt=False)
    (folder / "kernel" / "0").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="reading array 'kernel' failed"):
        read_weights(folder)["kernel"].sum()


def test_several_checkpoints_in_a_folder_are_none(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, {"kernel": jnp.ones(3)})
    with pytest.raises(FileNotFoundError, match=r"the folder contains 'a', 'b'\. Names of weight files are"):
        read_weights(tmp_path)
    save_file({"a": np.ones(1)}, tmp_path / "model.safetensors")
    assert set(read_weights(tmp_path)) == {"a"}
