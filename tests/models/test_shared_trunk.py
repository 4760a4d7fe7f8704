import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax import create_model
from transfer_jax.adapters import add_adapters, merge_adapters
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.models.shared_trunk import SharedTrunk

VIT = "vit_nano_patch8_32"
BLOCKS = ("embed", "blocks.0", "blocks.1", "blocks.2", "norm", "pre_logits")


@pytest.fixture(scope="module")
def models():
    """Two heads on one backbone, and an adapter of its last block."""
    first = create_model(VIT, 3, seed=1)
    second, third = nnx.clone(first), nnx.clone(first)
    second.head = create_model(VIT, 5, seed=2).head
    add_adapters(third, "lora(match('blocks.2.*kernel'))")
    factors = {path: x + 0.1 for path, x in split(third)[1].items() if "/lora/" in path}
    update(third, factors)
    merge_adapters(third)
    return {"first": first, "second": second, "third": third}


def test_outputs_are_those_of_each_model(models):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    trunk = SharedTrunk(models)
    found = jax.jit(trunk)(trunk.arrays, x)
    for name, model in models.items():
        np.testing.assert_allclose(found[name], model(x), rtol=1e-4, atol=1e-5)
    assert found["second"].shape == (2, 5)


@pytest.mark.parametrize(
    ("names", "shared", "steps"),
    [
        (("first",), (*BLOCKS, "head"), 7),
        (("first", "second"), BLOCKS, 8),
        (("first", "third"), BLOCKS[:3], 7 + 4),
        (("first", "second", "third"), BLOCKS[:3], 8 + 4),
    ],
)
def test_common_blocks_are_run_once(models, names, shared, steps):
    trunk = SharedTrunk({name: models[name] for name in names})
    assert trunk.shared == shared
    assert trunk.steps == len(trunk.arrays) == steps


def test_taps_share_the_whole_backbone():
    model = create_model("efficientnet_lite_tiny", 3, taps=True)
    assert SharedTrunk({"one": model, "two": nnx.clone(model)}).shared == ("backbone", "head")
