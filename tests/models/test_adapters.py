"""Adapters of small networks: their rules, and the functions that add, merge, choose and remove them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax import create_model
from transfer_jax.adapters import adapters_in_use, add_adapters, merge_adapters, remove_adapters, use_adapters
from transfer_jax.models.adapters.adapter import is_adapter_path
from transfer_jax.models.flat_arrays import merge, split, update

VIT = "vit_nano_patch8_32"


@pytest.fixture(scope="module")
def vit():
    model = create_model(VIT, 3, seed=1)
    model.eval()
    return model


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)


@jax.jit
def outputs(model, x):
    return model(x)


def trained(model, *names: str) -> None:
    """Changes the arrays of adapters as training does."""
    rng, params = np.random.default_rng(1), split(model)[1]
    parts = tuple(f"/adapters/{name}" for name in names)
    changed = {
        path: x + 0.05 * rng.normal(size=x.shape) for path, x in params.items() if is_adapter_path(path)
    }
    chosen = {path: x.astype(jnp.float32) for path, x in changed.items() if any(p in path for p in parts)}
    update(model, chosen)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("lora(role('kernel'))", ()),
        ("dora(rank=2) + ia3", ()),
        ("parallel + lora(rank=1)", ("parallel",)),
        ("prompts(tokens=2)", ("prompts",)),
        ("prompts(tokens=3, deep=False)", ("prompts",)),
    ],
)
def test_an_adapter_changes_nothing_until_it_trains_and_can_be_merged(vit, images, text, left):
    model, definition, before = nnx.clone(vit), split(vit)[0], np.asarray(outputs(vit, images))
    add_adapters(model, text)
    if "prompts" not in text:
        np.testing.assert_allclose(outputs(model, images), before, atol=1e-5)
    trained(model, "")
    graphdef, params, stats = split(model)
    assert {path for path in params if not is_adapter_path(path)} == {*split(vit)[1]}
    after = np.asarray(outputs(merge(graphdef, {**params, **stats}), images))
    assert np.abs(after - before).max() > 1e-3
    merge_adapters(model)
    assert tuple(each.name for each in model.backbone.adapters) == left
    np.testing.assert_allclose(outputs(model, images), after, atol=1e-5)
    remove_adapters(model)
    assert split(model)[0] == definition


@pytest.mark.extended
def test_gradients_reach_all_adapters_also_with_recomputed_activations(vit, images):
    model = nnx.clone(vit)
    add_adapters(model, "dora(rank=1) + ia3 + parallel(width=2) + prompts(tokens=1)")
    trained(model, "")

    def loss(params, remat):
        found = merge(graphdef, {**params, **stats})
        found.backbone.remat = remat
        return (found(images) ** 2).sum()

    graphdef, params, stats = split(model)
    gradients = jax.jit(jax.grad(loss), static_argnums=1)
    plain, recomputed = (gradients(params, remat) for remat in ("none", "block"))
    for path, gradient in plain.items():
        np.testing.assert_allclose(recomputed[path], gradient, rtol=1e-3, atol=1e-4, err_msg=path)
        assert not is_adapter_path(path) or float(jnp.abs(gradient).max()) > 0, path


def test_adapters_are_switched(vit, images):
    model = nnx.clone(vit)
    for name in ("cats", "dogs"):
        add_adapters(model, f"lora(rank=1, name='{name}')")
        trained(model, name)
    both = np.asarray(outputs(model, images))
    found = {}
    for names in ((), ("cats",), ("dogs",), ("dogs", "cats")):
        use_adapters(model, *names)
        assert {*adapters_in_use(model)} == {*names}
        found[names] = np.asarray(outputs(model, images))
    np.testing.assert_array_equal(found[()], outputs(vit, images))
    np.testing.assert_allclose(found["dogs", "cats"], both, atol=1e-6)  # Updates that are added commute.
    assert np.abs(found["cats",] - found["dogs",]).max() > 1e-4
    with pytest.raises(ValueError, match="no adapter 'birds'; the model has cats, dogs"):
        use_adapters(model, "birds")
    with pytest.raises(ValueError, match="has an adapter 'cats' already"):
        add_adapters(model, "ia3(name='cats')")


def test_update_of_a_convolution_by_hand():
    model = create_model("efficientnet_lite_tiny", 3)
    add_adapters(model, "lora(match('stem/conv/kernel'), rank=2, alpha=3.0)")
    path = "backbone/stem/conv/kernel"
    kernel = split(model)[1][path]
    a, b = (split(model)[1][f"backbone/stem/conv/adapters/lora/{name}"] for name in "ab")
    assert a.shape == (1, 27, 2)
    assert float(jnp.abs(a).max()) <= 27**-0.5
    update(model, {"backbone/stem/conv/adapters/lora/b": jnp.ones_like(b)})
    merge_adapters(model)
    expected = kernel + 1.5 * np.asarray(a[0]).sum(1).reshape(3, 3, 3, 1)
    np.testing.assert_allclose(split(model)[1][path], expected, rtol=1e-5, atol=1e-6)


def test_low_rank_updates_adapt_queries_and_values(vit):
    model, path = nnx.clone(vit), "backbone/blocks.1/attn/qkv"
    add_adapters(model, "lora(rank=1)")
    arrays = {name: split(model)[1][f"{path}/adapters/lora/{name}"] for name in "ab"}
    assert {name: x.shape for name, x in arrays.items()} == {"a": (2, 32, 1), "b": (2, 1, 32)}
    update(model, {f"{path}/adapters/lora/{name}": jnp.ones_like(x) for name, x in arrays.items()})
    merge_adapters(model)
    update_ = np.asarray(split(model)[1][f"{path}/kernel"] - split(vit)[1][f"{path}/kernel"])
    np.testing.assert_allclose(update_[:, :32], 8, rtol=1e-5)
    np.testing.assert_allclose(update_[:, 32:64], 0)
    np.testing.assert_allclose(update_[:, 64:], 8, rtol=1e-5)


def test_prompts_need_plain_attention():
    model = create_model("swin_tiny_patch4_window7_224", 3, abstract_backbone=True)
    with pytest.raises(ValueError, match="prompts need blocks of a transformer"):
        add_adapters(model, "prompts(match('/attn/'))")
