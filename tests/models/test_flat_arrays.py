import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax.models.flat_arrays import cast, merge, set_training, split, update, with_training
from transfer_jax.models.paths import block_of

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)), jnp.float32)
NAMES = ("stem", "blocks.1", "blocks.11", "top", "head")


def test_split_names_every_array_by_its_block(make_toy):
    _, params, stats = split(make_toy())
    assert "backbone/blocks.1/expand/conv/kernel" in params
    assert "head/classifier/bias" in params
    assert {path.rsplit("/", 1)[1] for path in stats} == {"mean", "var"}
    assert {block_of(path) for path in params} == set(NAMES)
    assert {block_of(path) for path in stats} == set(NAMES) - {"head"}
    # kernel, scale and bias of six convolutions (three of them in blocks.1), and the head
    assert len(params) == 6 * 3 + 2
    assert len(stats) == 6 * 2


def test_merge_is_the_inverse_of_split(make_toy):
    model = make_toy()
    graphdef, params, stats = split(model)
    copy = merge(graphdef, {**params, **stats})
    np.testing.assert_array_equal(copy(IMAGES), model(IMAGES))
    update(copy, {"head/classifier/bias": jnp.ones(3)})
    assert not np.allclose(copy(IMAGES), model(IMAGES))


def test_update_replaces_only_what_it_is_given(make_toy):
    model = make_toy()
    before = split(model)[1]
    update(model, {"head/classifier/bias": jnp.array([1.0, 2.0, 3.0])})
    after = split(model)[1]
    changed = [path for path in before if not np.array_equal(before[path], after[path])]
    assert changed == ["head/classifier/bias"]
    np.testing.assert_array_equal(after["head/classifier/bias"], [1, 2, 3])


def test_cast_rounds_copies_of_the_parameters_only(make_toy):
    _, params, stats = split(make_toy())
    found = cast({**params, **stats}, jnp.bfloat16)
    assert {path for path, array in found.items() if array.dtype == jnp.bfloat16} == set(params)
    assert {str(array.dtype) for array in params.values()} == {"float32"}


@pytest.mark.parametrize("norm", ["frozen", "train"])
@pytest.mark.parametrize("chosen", [(), ("head",), ("blocks.11", "head"), ("blocks.1",), NAMES])
def test_only_the_chosen_blocks_train(make_toy, chosen, norm):
    graphdef, params, stats = split(make_toy(dropout=0.5))
    model = merge(with_training(graphdef, {**params, **stats}, chosen, norm=norm), {**params, **stats})
    for name in NAMES:
        block = model.head if name == "head" else getattr(model.backbone, name)
        for _, part in nnx.iter_modules(block):
            if isinstance(part, nnx.Dropout):
                assert part.deterministic == (name not in chosen), name
            if isinstance(part, nnx.BatchNorm):
                assert part.use_running_average == (name not in chosen or norm == "frozen"), name
    model(IMAGES, rngs=nnx.Rngs(0))
    after = split(model)[2]
    moved = {block_of(path) for path in stats if not np.array_equal(stats[path], after[path])}
    assert moved == (set(chosen) - {"head"} if norm == "train" else set())


def test_training_mode_can_be_undone(make_toy):
    model = make_toy(dropout=0.5)
    before = model(IMAGES)
    set_training(model, NAMES, norm="train")
    assert not np.allclose(model(IMAGES, rngs=nnx.Rngs(0)), before)
    graphdef, params, stats = split(make_toy(dropout=0.5))
    set_training(model, (), norm="train")
    assert split(model)[0] == graphdef
    update(model, {**params, **stats})
    np.testing.assert_array_equal(model(IMAGES), before)


def test_drop_path_drops_whole_images(make_toy):
    model = make_toy()
    x = jax.random.normal(jax.random.key(0), (64, 4, 4, 8))
    block = getattr(model.backbone, "blocks.1")
    quiet = block(x)
    set_training(model, ["blocks.1"], norm="frozen")
    loud = block(x, rngs=nnx.Rngs(1))
    dropped = np.array([np.array_equal(a, b) for a, b in zip(loud, x, strict=True)])
    assert 10 < dropped.sum() < 54
    # kept branches are scaled to keep the mean: x + branch / 0.5
    np.testing.assert_allclose(loud[~dropped], (x + 2 * (quiet - x))[~dropped], rtol=1e-5, atol=1e-5)


def test_many_hidden_layers_keep_their_order(make_toy):
    model = make_toy(hidden=(2,) * 11)
    graphdef, params, stats = split(model)
    np.testing.assert_array_equal(merge(graphdef, {**params, **stats})(IMAGES), model(IMAGES))
    update(model, {"head/hidden/10/bias": jnp.full(2, 7.0)})
    np.testing.assert_array_equal(split(model)[1]["head/hidden/10/bias"], [7, 7])
