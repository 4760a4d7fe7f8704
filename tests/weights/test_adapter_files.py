"""Adapters on disk: their own files, those of models of runs, and those of peft."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from transfer_jax import create_model
from transfer_jax.adapters import (
    add_adapters,
    load_adapters,
    load_peft,
    merge_adapters,
    remove_adapters,
    save_adapters,
    save_peft,
)
from transfer_jax.models import Preprocessing
from transfer_jax.models.adapters.adapter import is_adapter_path
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.base_weights import base_of
from transfer_jax.weights.readers import CheckpointError
from transfer_jax.weights.saved_model import SavedModel

VIT, SEED = "vit_nano_patch8_32", 3


@pytest.fixture(scope="module")
def base():
    return create_model(VIT, 3, seed=SEED)


def arrays_of(model) -> dict:
    _, params, stats = split(model)
    return {**params, **stats}


def trained(base, text: str):
    """Returns a model with adapters whose arrays and head have changed."""
    model, rng = nnx.clone(base), np.random.default_rng(1)
    add_adapters(model, text)
    changed = {
        path: jnp.asarray(x + 0.1 * rng.normal(size=x.shape), jnp.float32)
        for path, x in split(model)[1].items()
        if is_adapter_path(path) or path.startswith("head/")
    }
    update(model, changed)
    model.eval()
    return model


def same_adapters(one, other) -> None:
    assert one.backbone.adapters == other.backbone.adapters
    expected = {path: x for path, x in arrays_of(one).items() if is_adapter_path(path)}
    found = {path: x for path, x in arrays_of(other).items() if is_adapter_path(path)}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("text", ["lora + prompts", "dora(role('kernel'), rank=1)", "parallel + ia3"])
def test_adapters_are_read_back_bit_for_bit(tmp_path, base, text):
    model, other = trained(base, text), nnx.clone(base)
    file = save_adapters(model, tmp_path / "a.safetensors")
    load_adapters(other, file)
    same_adapters(model, other)


def test_an_adapter_of_a_vit_s_has_less_than_200_kb(tmp_path):
    model = create_model("vit_small_patch16_224", 2)
    add_adapters(model, "lora(rank=2)")  # 36,864 numbers of float32.
    assert save_adapters(model, tmp_path / "a.safetensors").stat().st_size < 200_000


def test_several_adapters_of_one_name_are_combined(tmp_path, base):
    model, file = nnx.clone(base), tmp_path / "a.safetensors"
    save_adapters(trained(base, "lora"), file, "lora")
    for name in ("cats", "dogs"):
        load_adapters(model, file, name=name)
    assert [each.name for each in model.backbone.adapters] == ["cats", "dogs"]
    with pytest.raises(ValueError, match="has an adapter 'dogs' already"):
        load_adapters(model, file, name="dogs")


def test_an_adapter_of_other_weights_is_refused(tmp_path, base):
    file = save_adapters(trained(base, "lora"), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"were trained on a backbone with the SHA-256 .*and this one has"):
        load_adapters(create_model(VIT, 3, seed=SEED + 1), file)


@pytest.mark.parametrize("at", [-1, 20])
def test_damaged_files_are_named(tmp_path, base, at):
    file = save_adapters(trained(base, "lora"), tmp_path / "a.safetensors")
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors is damaged"):
        load_adapters(nnx.clone(base), file)


def test_other_files_are_named(tmp_path, base):
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="has no adapters"):
        load_adapters(base, tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="no file of adapters"):
        load_adapters(base, tmp_path / "y.safetensors")


def saved_model(model, weights: str, file: str = "") -> SavedModel:
    return SavedModel(
        model=VIT,
        task=SingleLabel(names=("a", "b", "c")),
        preprocessing=Preprocessing(image_size=32, mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0)),
        adapters=model.backbone.adapters,
        base=base_of(weights, file, arrays_of(model), seed=SEED),
    )


@pytest.mark.parametrize("from_file", [False, True])
@pytest.mark.parametrize("text", ["lora", "prompts + dora"])
def test_a_saved_model_has_adapters_and_head_only(tmp_path, base, text, from_file):
    model, file = trained(base, text), tmp_path / "base.safetensors"
    save_file({path: np.asarray(x) for path, x in arrays_of(base).items()}, file)
    saved = saved_model(model, *((str(file), str(file)) if from_file else ("none",)))
    saved.save(tmp_path / "model", arrays_of(model))
    assert (tmp_path / "model/weights.safetensors").stat().st_size < file.stat().st_size / 3
    described, plain = SavedModel.load(tmp_path, merged=False)
    assert described == SavedModel.describe(tmp_path) == saved
    same_adapters(plain, model)
    described, merged = SavedModel.load(tmp_path)
    assert described.base is None
    assert [each.name for each in described.adapters] == [n for n in ("prompts",) if n in text]
    merge_adapters(model)
    jax.tree.map(np.testing.assert_array_equal, arrays_of(merged), arrays_of(model))
    other = nnx.clone(base)
    load_adapters(other, tmp_path)
    same_adapters(other, plain)
    described.save(tmp_path / "whole", arrays_of(merged))  # Needs no base.
    _, again = SavedModel.load(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, arrays_of(again), arrays_of(merged))


def test_missing_or_other_base_weights_are_named(tmp_path, base):
    model, file = trained(base, "lora"), tmp_path / "base.safetensors"
    arrays = {path: np.asarray(x) for path, x in arrays_of(base).items()}
    save_file(arrays, file)
    saved_model(model, str(file), str(file)).save(tmp_path, arrays_of(model))
    save_file({**arrays, "backbone/norm/norm/bias": arrays["backbone/norm/norm/bias"] + 1}, file)
    with pytest.raises(
        CheckpointError, match=r"were trained on weights of .* with the SHA-256 .* has .* now"
    ):
        SavedModel.load(tmp_path)
    file.unlink()
    with pytest.raises(
        CheckpointError, match=r"need the weights '.*base\.safetensors' of .*cannot be loaded"
    ):
        SavedModel.load(tmp_path)
    broken = dataclasses.replace(saved_model(model, "none"), base=None)
    with pytest.raises(ValueError, match="unknown kind of adapter 'magic'"):
        type(broken.adapters[0]).from_json({"kind": "magic"})


@pytest.mark.parametrize("library", ["timm", "transformers-5"])
@pytest.mark.parametrize("text", ["lora(role('kernel'), rank=2)", "dora", "ia3"])
def test_files_of_peft_keep_all_outputs(tmp_path, base, text, library):
    model, other = trained(base, text), nnx.clone(base)
    save_peft(model, VIT, tmp_path, library=library)
    load_peft(other, VIT, tmp_path)
    for each in (model, other):
        merge_adapters(each)
    for path, array in arrays_of(model).items():
        np.testing.assert_allclose(arrays_of(other)[path], array, rtol=1e-4, atol=1e-5, err_msg=path)


def test_a_config_of_peft(tmp_path, base):
    save_peft(trained(base, "lora(rank=2, alpha=3.0)"), VIT, tmp_path, library="timm")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == [f"blocks.{block}.attn.qkv" for block in range(3)]
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (4, 6.0, ["head"])


def test_unsupported_adapters_of_peft_are_named(tmp_path, base):
    with pytest.raises(ValueError, match="peft has no adapters of the kind prompts for images"):
        save_peft(trained(base, "prompts"), VIT, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no adapter_config\.json"):
        load_peft(nnx.clone(base), VIT, tmp_path)
    save_peft(trained(base, "lora"), VIT, tmp_path, library="timm")
    with pytest.raises(
        CheckpointError, match=r"adapts blocks\..*qkv.*, which efficientnet_lite0 does not have"
    ):
        load_peft(
            create_model("efficientnet_lite0", 3, abstract_backbone=True), "efficientnet_lite0", tmp_path
        )
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "VERA"}')
    with pytest.raises(ValueError, match="kind VERA are unsupported"):
        load_peft(nnx.clone(base), VIT, tmp_path)


def test_removed_adapters_are_not_saved(tmp_path, base):
    model = trained(base, "lora + ia3")
    remove_adapters(model, "lora")
    file, other = save_adapters(model, tmp_path / "a.safetensors"), nnx.clone(base)
    load_adapters(other, shutil.copy(file, tmp_path / "b.safetensors"))
    same_adapters(model, other)
    with pytest.raises(ValueError, match="no adapter 'lora'; the model has ia3"):
        save_adapters(model, file, "lora")
