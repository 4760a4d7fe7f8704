import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax.models import Head
from transfer_jax.nn.initializers import NumpyRngs

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)


@pytest.mark.parametrize(
    ("start", "stop", "blocks"),
    [
        (None, None, ("stem", "blocks.1", "blocks.11", "top", "pre_logits")),
        (None, "stem", ("stem",)),
        ("stem", "blocks.11", ("blocks.1", "blocks.11")),
        ("top", None, ("pre_logits",)),
        ("top", "top", ()),
        ("pre_logits", None, ()),
    ],
)
def test_span_is_after_start_up_to_and_including_stop(make_toy, start, stop, blocks):
    assert make_toy().backbone.span(start, stop) == blocks


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (None, "block.1", r"no block 'block\.1'; did you mean blocks\.1.*The blocks are stem, blocks\.1,"),
        ("nowhere", None, "no block 'nowhere'.*The blocks are stem"),
        ("top", "stem", "stop block 'stem' comes before start block 'top'"),
    ],
)
def test_invalid_spans_name_the_blocks(make_toy, start, stop, message):
    with pytest.raises(ValueError, match=message):
        make_toy().backbone(IMAGES, start=start, stop=stop)


@pytest.mark.parametrize("boundary", ["stem", "blocks.1", "blocks.11", "top", "pre_logits"])
def test_two_halves_equal_the_whole(make_toy, boundary):
    model = make_toy()
    features = model.backbone(IMAGES, stop=boundary)
    assert features.shape[-1] in (8, 12, 16)
    np.testing.assert_array_equal(model(features, start=boundary), model(IMAGES))


def test_pre_logits_are_pooled(make_toy):
    backbone = make_toy().backbone
    maps = backbone(IMAGES, stop="top")
    assert maps.shape == (2, 4, 4, 16)
    np.testing.assert_allclose(backbone(IMAGES), np.asarray(maps).mean((1, 2)), rtol=1e-6)
    assert backbone(IMAGES).shape == (2, backbone.features)


def test_head_by_hand():
    head = Head(2, 2, hidden=(2,), rngs=NumpyRngs(0))
    values = {
        ("hidden", 0, "kernel"): jnp.array([[1.0, -1.0], [2.0, 0.0]]),
        ("hidden", 0, "bias"): jnp.array([0.5, 0.0]),
        ("classifier", "kernel"): jnp.array([[1.0, 3.0], [10.0, 10.0]]),
        ("classifier", "bias"): jnp.array([0.0, -1.0]),
    }
    nnx.update(head, nnx.from_flat_state(values))
    # hidden = relu([1 + 4 + 0.5, -1]) = [5.5, 0]
    np.testing.assert_allclose(head(jnp.array([[1.0, 2.0]])), [[5.5, 15.5]])


def test_head_drops_its_inputs_only_while_it_trains():
    head = Head(4, 3, hidden=(8,), dropout=0.5, rngs=NumpyRngs(0))
    features = jnp.ones((2, 4))
    head.eval()
    quiet = head(features)
    np.testing.assert_array_equal(head(features), quiet)
    head.train()
    draws = [head(features, rngs=nnx.Rngs(jax.random.key(seed))) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2])
    assert not np.allclose(draws[0], quiet)
