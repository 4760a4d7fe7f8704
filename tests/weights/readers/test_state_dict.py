import numpy as np
import pytest

from transfer_jax.weights.readers.allowed_globals import LegacyParameter, TensorRef
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.state_dict import WRAPPERS, find_state_dict

T, U = (TensorRef(key, np.dtype(np.float32), 0, (), ()) for key in "01")


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"a.weight": T, "a.bias": U}, {"a.weight": T, "a.bias": U}),
        ({"a": T, "step": 3, "note": "x", "nothing": None, "list": [T]}, {"a": T}),
        ({"state_dict": {"a": T}, "epoch": 3}, {"a": T}),
        ({"state_dict": {"a": T}, "best_acc1": U}, {"a": T}),
        ({"model": {"a": T}, "optimizer": {"state": {0: {"exp_avg": U}}}}, {"a": T}),
        ({"model": {"state_dict": {"a": T}, "other": U}}, {"a": T}),
        ({"state_dict": {"a": T}, "model": "resnet50", "ema": {}}, {"a": T}),
        ({"anything": {"inner": {"a": T}}}, {"a": T}),
        ({"a": LegacyParameter(T)}, {"a": T}),
        ({"module.a": T, "module.b": U}, {"a": T, "b": U}),
        ({"module._orig_mod.a": T}, {"a": T}),
        ({"module.a": T, "b": U}, {"module.a": T, "b": U}),
        ({"module.": T, "module.b": U}, {"module.": T, "module.b": U}),
    ],
)
def test_found(tree, expected):
    found = find_state_dict(tree)
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize("key", WRAPPERS)
def test_wrappers(key):
    assert find_state_dict({"z": {"b": U}, key: {"a": T}}) == {"a": T}


def test_one_dictionary_under_two_keys_is_not_ambiguous():
    weights = {"a": T}
    assert find_state_dict({"other": weights, "model": weights, "state_dict": weights}) == weights


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (T, "a single tensor"),
        ([T], "a list"),
        (None, "a NoneType"),
        ({}, "no dictionary of named tensors"),
        ({"epoch": 3, "state_dict": {"a": 1}}, "no dictionary of named tensors"),
        ({0: T}, "no dictionary of named tensors"),
        ({"model": {"a": T}, "model_ema": {"a": U}}, "several .*: 'model', 'model_ema'$"),
        ({"encoder": {"a": T}, "head": {"a": U}}, "several .*: 'encoder', 'head'$"),
        ({"a": T, "encoder": {"a": T}}, "several .*: '', 'encoder'$"),
        ({"model": {"x": {"a": T}, "y": {"a": T}}}, "several .*: 'model.x', 'model.y'$"),
        ({str(i): {"a": T} for i in range(20)}, "'7' and 12 more$"),
    ],
)
def test_refused(tree, message):
    with pytest.raises(CheckpointError, match=message):
        find_state_dict(tree)


def test_entry_chooses():
    tree = {"model": {"a": T}, "model_ema": {"module.a": U}, "best": U}
    assert find_state_dict(tree, "model") == {"a": T}
    assert find_state_dict(tree, "model_ema") == {"a": U}
    assert find_state_dict(tree, "") == {"best": U}
    with pytest.raises(CheckpointError, match="no state dict 'ema'; choose from '', 'model', 'model_ema'"):
        find_state_dict(tree, "ema")
    with pytest.raises(CheckpointError, match="no dictionary of named tensors"):
        find_state_dict({}, "model")


def test_a_dictionary_that_holds_itself():
    tree: dict[str, object] = {"a": T}
    tree["model"] = tree
    assert find_state_dict(tree) == {"a": T}


def test_shared_dictionaries_are_looked_at_once():
    """Walking every path through these would take 40 ** 8 steps."""
    tree = {"a": T}
    for _ in range(7):
        tree = {f"k{i}": tree for i in range(40)}
    assert find_state_dict(tree) == {"a": T}
