import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from transfer_jax.weights.readers import CheckpointError, read_weights

FIRST, SECOND = {"a": np.arange(3.0), "b": np.ones((2, 2))}, {"c": np.array(7)}
PLACES = {"c": "two.safetensors", "a": "one.safetensors", "b": "one.safetensors"}
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    save_file(FIRST, tmp_path / "one.safetensors")
    save_file(SECOND, tmp_path / "two.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {"total_size": 64}, "weight_map": PLACES}))
    return tmp_path


@pytest.mark.parametrize("inside", ["", INDEX])
@pytest.mark.parametrize("format", [None, "safetensors-index"])
def test_arrays(folder, inside, format):
    weights = read_weights(folder / inside, format)
    assert list(weights) == list(PLACES)
    for name, expected in {**FIRST, **SECOND}.items():
        np.testing.assert_array_equal(weights[name], expected)
        assert weights.infos[name].shape == expected.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": "three.safetensors"}, "names the file 'three.safetensors', which is missing"),
        ({"a": "/etc/passwd"}, "'/etc/passwd', which is not in the index's folder"),
        ({"a": "../one.safetensors"}, r"'\.\./one.safetensors', which is not in the index's folder"),
        ({"a": "sub\\one.safetensors"}, "which is not in the index's folder"),
        ({"a": ".."}, "which is not in the index's folder"),
        ({"a": 3}, "must name a file for each key"),
        ({"d": "one.safetensors"}, "'d' is in 'one.safetensors', but that file lacks it"),
        ({"c": None}, "must name a file"),
    ],
)
def test_an_index_that_is_not_of_the_files(folder, change, message):
    (folder / INDEX).write_text(json.dumps({"weight_map": {**PLACES, **change}}))
    with pytest.raises(CheckpointError, match=rf"index\.json: .*{message}") as caught:
        read_weights(folder)
    assert "\n" not in str(caught.value)


def test_a_key_in_two_files(folder):
    save_file({**SECOND, "a": np.zeros(3)}, folder / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"'a' is both in 'two.safetensors' and in 'one.safetensors'"):
        read_weights(folder)


def test_a_key_that_the_index_lacks(folder):
    save_file({**SECOND, "z": np.zeros(3)}, folder / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"'two.safetensors' has 'z', which the index does not name"):
        read_weights(folder)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}', "names 'a' twice"),
        ('{"weight_map": {"a": ', "invalid JSON"),
        ('{"weight_map": NaN}', "NaN is not valid in JSON"),
        ('{"weight_map": {}}', "not an index of weight files"),
        ("{}", "not an index of weight files"),
        ('{"a":' + "[" * 100_000, "invalid JSON: RecursionError"),
    ],
)
def test_damaged_indices(folder, raw, message):
    (folder / INDEX).write_text(raw)
    with pytest.raises(CheckpointError, match=message):
        read_weights(folder)


def test_a_damaged_file_is_named(folder):
    (folder / "one.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match=r"one\.safetensors: damaged or truncated"):
        read_weights(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors", "model/weights.safetensors"])
def test_folders_of_a_single_file(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    save_file(FIRST, tmp_path / name)
    np.testing.assert_array_equal(read_weights(tmp_path)["a"], FIRST["a"])
