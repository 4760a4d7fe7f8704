import numpy as np
import pytest

from transfer_jax.weights.readers.allowed_globals import LegacyParameter, TensorRef
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.inert import Inert
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
        ({"module.a": T, "module.b": U}, {"module.a": T, "module.b": U}),
        ({"state_dict": {"a": T, "b": U}, "opt": {"m": {"a": T, "b": T}}}, {"a": T, "b": U}),
        ({"state_dict": {"a": T, "b": U}, "exp_avg": {"a": T, "b": T}}, {"a": T, "b": U}),
        ({"state_dict": {"a": T, "b": U}, "discriminator": {"c": T, "d": U}}, {"a": T, "b": U}),
        ([{"a": T}, {"lr": 0.1}], {"a": T}),
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
        ([T], "no dictionary of named tensors"),
        (None, "a NoneType"),
        ({}, "no dictionary of named tensors"),
        ({"epoch": 3, "state_dict": {"a": 1}}, "no dictionary of named tensors"),
        ({0: T}, "no dictionary of named tensors"),
        ({"model": {"a": T}, "model_ema": {"a": U}}, "several .*: 'model', 'model_ema'; choose"),
        ({"state_dict": {"a": T}, "swa": {"module.a": U}}, "several .*: 'state_dict', 'swa'; choose"),
        ({"model": {"net.a": T}, "best": {"a": U}}, "for example --weights-entry model$"),
        ({"encoder": {"a": T}, "head": {"b": U}}, "several .*: 'encoder', 'head'; choose"),
        ({"a": T, "encoder": {"a": U}}, "several .*: '', 'encoder'; choose"),
        ({"model": {"x": {"a": T}, "y": {"a": U}}}, "several .*: 'model.x', 'model.y'; choose"),
        ({str(i): {f"a{i}": T} for i in range(20)}, "'7' and 12 more; choose"),
    ],
)
def test_refused(tree, message):
    with pytest.raises(CheckpointError, match=message):
        find_state_dict(tree)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("model", {"net.a": T}),
        ("model_ema", {"module.a": U}),
        ("", {"best": U}),
        ("model.net", {"a": T}),
        ("model_ema.module.", {"a": U}),
    ],
)
def test_entry_chooses(entry, expected):
    tree = {"model": {"net.a": T}, "model_ema": {"module.a": U}, "best": U}
    assert find_state_dict(tree, entry) == expected


def test_an_entry_may_be_a_prefix_of_the_only_state_dict():
    assert find_state_dict({"state_dict": {"student.a": T, "teacher.a": U}, "epoch": 3}, "teacher") == {
        "a": U
    }


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model": {"a": T}, "model_ema": {"a": U}}, "no entry 'ema'; choose from 'model', 'model_ema'"),
        ({"student.a": T, "teacher.a": U}, "no entry 'ema'; choose from 'student', 'teacher'"),
        ({}, "no dictionary of named tensors"),
    ],
)
def test_unknown_entries_name_the_known_ones(tree, message):
    with pytest.raises(CheckpointError, match=message):
        find_state_dict(tree, "ema")


def test_the_same_tensors_twice_are_not_ambiguous():
    assert find_state_dict({"model": {"a": T}, "best": {"a": T}}) == {"a": T}


def test_a_module_that_was_saved_as_a_whole_is_its_state_dict():
    def module(parameters, buffers, modules):
        made = Inert("torch.nn.modules.module.Module")
        made.set_state(
            {"training": True, "_parameters": parameters, "_buffers": buffers, "_modules": modules}
        )
        return made

    norm = module({"weight": T, "bias": None}, {"running_mean": U}, {})
    whole = module({}, {}, {"conv": module({"weight": U}, {}, {}), "norm": norm})
    expected = {"conv.weight": U, "norm.weight": T, "norm.running_mean": U}
    assert find_state_dict(whole) == expected
    assert find_state_dict({"epoch": 3, "model": whole}) == expected
    scripted, inner = Inert("__torch__.Net"), Inert("__torch__.Conv")
    inner.set_state({"weight": T, "training": True})
    scripted.set_state({"conv": inner, "scale": U})
    assert find_state_dict(scripted) == {"conv.weight": T, "scale": U}


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


@pytest.mark.parametrize("tree", [{"w": "array"}, {"model": {"w": "array"}, "epoch": 3}])
@pytest.mark.parametrize(
    "name", ["numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"]
)
def test_numpy_arrays_are_refused_with_advice(tree, name):
    tree = {
        key: {inner: Inert(name) for inner in value} if isinstance(value, dict) else value
        for key, value in tree.items()
    }
    tree = {key: Inert(name) if value == "array" else value for key, value in tree.items()}
    with pytest.raises(
        CheckpointError, match=r"NumPy arrays instead of tensors, such as 'w'; .*numpy\.savez"
    ):
        find_state_dict(tree)
