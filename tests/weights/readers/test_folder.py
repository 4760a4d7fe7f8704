import json

import numpy as np
import pytest
from safetensors.numpy import save

from transfer_jax.weights.readers import CheckpointError, read_weights


@pytest.fixture
def torch_file(craft):
    """Makes the bytes of a checkpoint with one array, filled with a value."""

    def make(value: float, key: str = "w") -> bytes:
        body = craft.mapping({key: craft.tensor(craft.storage("0", 2), (2,), (1,))})
        return craft.zip_file(body, {"0": np.full(2, value, np.float32).tobytes()})

    return make


@pytest.mark.parametrize(
    ("read", "others", "aside"),
    [
        ("pytorch_model.bin", (), ()),
        ("pytorch_model.bin", (), ("training_args.bin", "optimizer.pt", "rng_state.pth")),
        ("model.safetensors", ("pytorch_model.bin", "tf_model.h5"), ()),
        ("open_clip_model.safetensors", ("open_clip_pytorch_model.bin",), ()),
        ("net.pth", (), ("._net.pth", "README.md")),
        ("last.ckpt", (), ("scheduler.pt",)),
    ],
)
def test_the_first_file_in_the_order_is_read(read, others, aside, tmp_path, torch_file):
    for name in (read, *others, *aside):
        value = float(name == read)
        raw = save({"w": np.full(2, value, np.float32)}) if name.endswith("tensors") else torch_file(value)
        (tmp_path / name).write_bytes(raw)
    weights = read_weights(tmp_path)
    assert weights["w"].tolist() == [1, 1]
    noted = ", ".join(map(repr, others))
    assert weights.notes == ((f"{read} of {tmp_path} is read, not {noted}",) if others else ())


def test_shards_of_pytorch_files_are_read(tmp_path, torch_file):
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(torch_file(1, "a"))
    (tmp_path / "pytorch_model-00002-of-00002.bin").write_bytes(torch_file(2, "b"))
    places = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    weights = read_weights(tmp_path)
    assert {key: array.tolist() for key, array in weights.items()} == {"a": [1, 1], "b": [2, 2]}
    assert weights.notes == ()


def test_a_folder_without_weights_lists_what_it_has(tmp_path):
    (tmp_path / "README.md").write_text("x")
    (tmp_path / "runs").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"contains 'README\.md', 'runs'\. Names of weight files are model"
    ):
        read_weights(tmp_path)


def test_a_folder_with_a_file_of_another_format_names_it(tmp_path):
    (tmp_path / "flax_model.msgpack").touch()
    with pytest.raises(
        FileNotFoundError, match=r"flax_model\.msgpack is a Flax msgpack file; load it in Flax"
    ):
        read_weights(tmp_path)


def test_shards_without_their_index(tmp_path):
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"by their index, such as .*, which is missing"):
        read_weights(tmp_path)


def test_several_files_of_one_kind_are_not_chosen_from(tmp_path, torch_file):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(torch_file(1))
    with pytest.raises(
        CheckpointError, match=r"several weight files: 'a\.pth', 'b\.pth'; give the path of one"
    ):
        read_weights(tmp_path)


def test_a_distributed_checkpoint_is_refused_with_the_command_that_converts_it(tmp_path):
    for name in (".metadata", "__0_0.distcp"):
        (tmp_path / name).touch()
    with pytest.raises(
        CheckpointError, match=rf"distributed checkpoint .*dcp_to_torch {tmp_path} weights\.pth"
    ):
        read_weights(tmp_path)
