import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing import combine, partition
from transfer_jax.freezing.function_split import split_frozen

BATCH = {"x": jax.random.normal(jax.random.key(0), (4, 16)), "y": jnp.arange(4) % 3}


@pytest.fixture(scope="module")
def params():
    keys = jax.random.split(jax.random.key(1), 4)
    kernels = [jax.random.normal(key, (16, 16)) / 4 for key in keys[:3]]
    return {"layers": kernels, "head": jax.random.normal(keys[3], (16, 3))}


def network(params, state, batch, key):
    h = batch["x"]
    for kernel in params["layers"]:
        h = jax.nn.gelu(h @ kernel)
    return h @ params["head"]


def loss(params, state, batch, key):
    return -jnp.take_along_axis(
        jax.nn.log_softmax(network(params, state, batch, key)), batch["y"][:, None], 1
    )


def frozen_layers(count):
    return {"layers": ["frozen" if index < count else "layers" for index in range(3)], "head": "head"}


def check(function, params, labels, batch, key=None, state=None, **options):
    """Splits a function, compares it with the whole, and returns the split."""
    split = split_frozen(function, params, labels, batch, key=key, state=state, **options)
    trainable, frozen = partition(params, labels)
    features = split.prefix(
        frozen, batch, state
    )  # Compiled together, XLA rounds fused operations differently.
    assert {name: each.shape[1:] for name, each in features.items()} == {
        name: each.shape for name, each in split.features.items()
    }
    needed = {name: each for name, each in batch.items() if name in split.inputs}
    found = split.suffix(trainable, frozen, state, features, needed, key)
    jax.tree.map(np.testing.assert_array_equal, found, function(params, state, batch, key))

    def total(outputs):
        return sum(jnp.sum(jnp.sin(each.astype(jnp.float32))) for each in jax.tree.leaves(outputs))

    of_parts = jax.grad(lambda part: total(split.suffix(part, frozen, state, features, needed, key)))
    of_whole = jax.grad(lambda part: total(function(combine(part, frozen), state, batch, key)))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4),
        jax.jit(of_parts)(trainable),
        jax.jit(of_whole)(trainable),
    )
    return split


@pytest.mark.parametrize("count", [1, 2, 3])
def test_features_of_a_network(params, count):
    split = check(network, params, frozen_layers(count), BATCH)
    assert [each.shape for each in split.features.values()] == [(16,)]
    assert split.inputs == ()
    assert split.cost.bytes == 64
    assert split.cost.suffix_flops == (3 - count) * 2 * 16 * 16 + 2 * 16 * 3
    assert split.cost.prefix_flops + split.cost.suffix_flops == split.cost.flops


def test_labels_are_read_from_the_batch(params):
    split = check(loss, params, frozen_layers(3), BATCH)
    assert split.inputs == ("y",)
    assert split.mixing == ()


def test_another_batch_size(params):
    labels = frozen_layers(2)
    split = split_frozen(network, params, labels, BATCH)
    trainable, frozen = partition(params, labels)
    for size in (1, 3, 7):
        x = {"x": jax.random.normal(jax.random.key(size), (size, 16))}
        found = split.suffix(trainable, frozen, None, split.prefix(frozen, x), {}, None)
        np.testing.assert_allclose(found, network(params, None, x, None), rtol=1e-6)


def test_two_towers_keep_the_frozen_one(params):
    def towers(params, state, batch, key):
        image = jnp.tanh(batch["image"] @ params["image"]) @ params["image_top"]
        text = jnp.tanh(batch["text"] @ params["text"])
        return image @ text.T

    keys = jax.random.split(jax.random.key(2), 5)
    names = ("image", "image_top", "text")
    params = {name: jax.random.normal(key, (8, 8)) for name, key in zip(names, keys, strict=False)}
    batch = {"image": jax.random.normal(keys[3], (4, 8)), "text": jax.random.normal(keys[4], (4, 8))}
    split = check(towers, params, {"image": "frozen", "image_top": "top", "text": "frozen"}, batch)
    assert len(split.features) == 2
    assert "multiplies examples with one another" not in str(split.mixing)  # That is in the trainable part.


def test_skips_are_cached_together(params):
    def unet(params, state, batch, key):
        a = jnp.tanh(batch["x"] @ params["layers"][0])
        b = jnp.tanh(a @ params["layers"][1])
        c = jnp.tanh(b @ params["layers"][2])
        return (c + jnp.exp(b)) @ params["head"] + (a @ params["head"]) ** 2

    split = check(unet, params, frozen_layers(3), BATCH)
    assert sorted(each.shape for each in split.features.values()) == [(16,), (16,)]


def test_biases_only(params):
    def biased(params, state, batch, key):
        h = batch["x"]
        for kernel, bias in zip(params["layers"], params["biases"], strict=True):
            h = jnp.tanh(h @ kernel + bias)
        return h

    params = {"layers": params["layers"], "biases": [jnp.zeros(16)] * 3}
    labels = {"layers": ["frozen"] * 3, "biases": ["frozen", "bias", "bias"]}
    split = check(biased, params, labels, BATCH)
    assert split.cost.bytes == 64
    assert split.cost.suffix_flops == 2 * 16 * 16  # The product with the second kernel is cached.


def test_recomputing_is_cheaper_than_wide_features(params):
    def wide(params, state, batch, key):
        return jnp.tanh(batch["x"] @ params["wide"]) @ params["head"]

    params = {"wide": jnp.ones((16, 512)), "head": jnp.ones((512, 3))}
    labels = {"wide": "frozen", "head": "head"}
    assert check(wide, params, labels, BATCH).cost.bytes == 4 * 512
    cheap = check(wide, params, labels, BATCH, flops_per_byte=1e6)
    assert cheap.features == {}
    assert cheap.inputs == ("x",)


def test_products_that_cost_little_are_repeated(params):
    def adapted(params, state, batch, key):
        h = jnp.tanh(batch["x"] @ params["layers"][0])
        wide = jnp.tanh(h @ params["wide"] + (h @ params["down"]) @ params["up"])
        for kernel in params["top"]:
            wide = jnp.tanh(wide @ kernel)
        return h @ params["head"] + wide.mean(-1, keepdims=True)

    params = {**params, "wide": jnp.ones((16, 64)) / 16, "down": jnp.ones((16, 2)), "up": jnp.ones((2, 64))}
    params["top"] = [jnp.ones((64, 64)) / 64] * 4
    labels = dict.fromkeys(params, "top") | {"wide": "frozen", "layers": ["frozen"] * 3, "top": ["t"] * 4}
    params["layers"] = params["layers"][:1]
    labels["layers"] = ["frozen"]
    split = check(adapted, params, labels, BATCH)
    assert split.cost.bytes == 64
    assert "Repeated in each step, because features would be larger: 0.00 MFLOP" in split.explain()
    without = check(adapted, params, labels, BATCH, flops_per_byte=float("inf"))
    assert without.cost.bytes == 64 + 4 * 64
    assert "Repeated" not in without.explain()


def test_an_encoder_of_tokens_is_not_repeated():
    def encoder(params, state, batch, key):
        h = params["words"][batch["tokens"]] + params["segments"][jnp.zeros_like(batch["tokens"])]
        for kernel in params["layers"]:
            h = jnp.tanh(h @ kernel)
        return h.mean(1) @ params["head"]

    keys = iter(jax.random.split(jax.random.key(0), 9))
    params = {
        "words": jax.random.normal(next(keys), (20, 8)),
        "segments": jax.random.normal(next(keys), (2, 8)),
        "layers": [jax.random.normal(next(keys), (8, 8)) / 3 for _ in range(6)],
        "head": jax.random.normal(next(keys), (8, 3)),
    }
    labels = dict.fromkeys(params, "frozen") | {"layers": ["frozen"] * 3 + ["top"] * 3, "head": "head"}
    split = check(encoder, params, labels, {"tokens": jnp.arange(20).reshape(4, 5)})
    (feature,) = split.features.values()
    assert feature.shape == (5, 8)
    assert split.inputs == ()


def test_features_larger_than_the_batch(params):
    def wide(params, state, batch, key):
        return jnp.tanh(batch["x"] @ params["wide"]) @ params["head"]

    params = {"wide": jnp.ones((16, 512)), "head": jnp.ones((512, 3))}
    split = split_frozen(wide, params, {"wide": "frozen", "head": "head"}, BATCH)
    assert (split.cost.bytes, split.cost.batch_bytes) == (2048, 64)
    assert "larger than the arrays of the batch that they replace, 2.0 kB against 64 bytes" in split.explain()


def test_random_keys_stay_in_the_step(params):
    def dropped(params, state, batch, key):
        h = jnp.tanh(batch["x"] @ params["layers"][0])
        h = h * jax.random.bernoulli(key, 0.5, h.shape)
        return jnp.tanh(h @ params["layers"][1]) @ params["layers"][2] @ params["head"]

    split = check(dropped, params, frozen_layers(3), BATCH, key=jax.random.key(3))
    assert split.cost.prefix_flops == 2 * 16 * 16
    assert [each.text for each in split.causes()] == ["a random key"]
    assert "test_split.py" in split.causes()[0].source


def test_mixing_operations_stay_in_the_step(params):
    def normalized(params, state, batch, key):
        h = jnp.tanh(batch["x"] @ params["layers"][0])
        h = h - h.mean(0)
        return jnp.tanh(h @ params["layers"][1]) @ params["head"] + params["layers"][2][0, 0]

    split = check(normalized, params, frozen_layers(3), BATCH)
    assert split.cost.prefix_flops == 2 * 16 * 16
    assert "reduces over the examples" in split.mixing[0].text
    assert "test_split.py" in split.mixing[0].source


def test_stacked_layers_become_two_scans():
    def stacked(params, state, batch, key):
        layers = jnp.concatenate([params["frozen"], params["top"]])
        return jax.lax.scan(lambda h, kernel: (jnp.tanh(h @ kernel), None), batch["x"], layers)[0]

    keys = jax.random.split(jax.random.key(5), 2)
    params = {
        "frozen": jax.random.normal(keys[0], (4, 16, 16)),
        "top": jax.random.normal(keys[1], (2, 16, 16)),
    }
    split = check(stacked, params, {"frozen": "frozen", "top": "top"}, BATCH)
    assert split.cost.bytes == 64
    assert split.cost.suffix_flops == 2 * 2 * 16 * 16


def test_checkpointed_blocks_lose_their_frozen_part(params):
    def checkpointed(params, state, batch, key):
        def block(h, kernel, top):
            return jnp.tanh(jnp.tanh(h @ kernel) @ top)

        h = jax.checkpoint(block)(batch["x"], params["layers"][0], params["layers"][1])
        return jax.checkpoint(block)(h, params["layers"][2], params["head"])

    split = check(checkpointed, params, {"layers": ["frozen"] * 3, "head": "head"}, BATCH)
    assert split.cost.suffix_flops == 2 * 16 * 3
    jaxpr = str(
        jax.make_jaxpr(
            lambda part: split.suffix(
                part, {}, None, split.prefix({"layers": params["layers"]}, BATCH), {}, None
            )
        )({"head": params["head"]})
    )
    assert "checkpoint" in jaxpr or "remat" in jaxpr


def test_shared_parameters_are_in_both_parts(params):
    def tied(params, state, batch, key):
        return jnp.tanh(batch["x"] @ params["tied"]) @ params["layer"] @ params["tied"].T

    params = {"tied": params["layers"][0], "layer": params["layers"][1]}
    check(tied, params, {"tied": "frozen", "layer": "layer"}, BATCH)


def test_state_that_moves_in_the_trainable_part(params):
    def counting(params, state, batch, key):
        h = jnp.tanh(batch["x"] @ params["layers"][0]) * state["scale"]
        h = h @ params["layers"][1] @ params["layers"][2]
        mean = 0.9 * state["mean"] + 0.1 * h.mean(0)
        return (h - mean) @ params["head"], {"mean": mean, "scale": state["scale"]}

    state = {"mean": jnp.zeros(16), "scale": jnp.full(16, 2.0)}
    split = check(counting, params, frozen_layers(2), BATCH, state=state)
    assert split.cost.suffix_flops == 2 * 16 * 16 + 2 * 16 * 3


def test_low_precision(params):
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    split = split_frozen(network, low, frozen_layers(2), {"x": BATCH["x"].astype(jnp.bfloat16)})
    assert split.features["features"].dtype == "bfloat16"
    assert split.cost.bytes == 32


def test_digest_depends_on_what_the_prefix_computes(params):
    labels = frozen_layers(2)
    _, frozen = partition(params, labels)
    split = split_frozen(network, params, labels, BATCH)
    digest = split.digest(frozen)
    fewer = {name: each[:2] for name, each in BATCH.items()}
    assert split_frozen(network, params, labels, fewer).digest(frozen) == digest
    changed = {"layers": [frozen["layers"][0] + 1e-6, *frozen["layers"][1:]]}
    assert split.digest(changed) != digest
    other = split_frozen(lambda p, s, b, k: network(p, s, {"x": 2 * b["x"]}, k), params, labels, BATCH)
    assert other.digest(frozen) != digest


def test_explanation_names_features_and_causes(params):
    text = split_frozen(loss, params, frozen_layers(2), BATCH).explain()
    for part in (
        "64 bytes",
        "16 float32",
        "layers/2",
        "test_split.py",
        "Read from the batch in each step: y",
    ):
        assert part in text


def _closes_over(params, state, batch, key):
    return network(params, state, batch, key) + jnp.asarray(np.ones((600, 600))).sum()


def _prints(params, state, batch, key):
    jax.debug.print("{}", batch["x"][0, 0])
    return network(params, state, batch, key)


def _moves_frozen_statistics(params, state, batch, key):
    h = jnp.tanh(batch["x"] @ params["layers"][0])
    return network(params, state, batch, key), {"mean": 0.9 * state["mean"] + 0.1 * h.mean(0)}


@pytest.mark.parametrize(
    ("function", "change", "message"),
    [
        (
            network,
            {"labels": {"layers": ["frozen"] * 3}},
            r"labels do not fit the parameters; 1 paths differ: \['head'\]",
        ),
        (network, {"labels": {"layers": ["frozen"] * 3, "head": "frozen"}}, "all parameters are frozen"),
        (
            lambda p, s, b, k: b["x"] @ p["layers"][0] @ p["layers"][1],
            {},
            "trainable parameters do not affect the outputs, such as 'head'",
        ),
        (
            network,
            {"batch": {"x": BATCH["x"], "y": jnp.arange(3)}},
            "examples on axis 0; the sizes of axis 0 are",
        ),
        (network, {"batch": {"x": BATCH["x"], "rate": jnp.float32(1)}}, "examples on axis 0"),
        (_prints, {}, "side effect: debug_.* at .*test_split.py"),
        (_closes_over, {}, "closes over 1.4 MB of arrays"),
        (
            _moves_frozen_statistics,
            {"state": {"mean": jnp.zeros(16)}},
            "changes the state mean .*inference mode",
        ),
    ],
)
def test_invalid_functions_raise(params, function, change, message):
    given = {"labels": frozen_layers(2), "batch": BATCH, "state": None, **change}
    with pytest.raises(ValueError, match=message):
        split_frozen(function, params, given["labels"], given["batch"], state=given["state"])


def test_missing_inputs_raise(params):
    split = split_frozen(loss, params, frozen_layers(2), BATCH)
    trainable, frozen = partition(params, frozen_layers(2))
    with pytest.raises(
        ValueError, match="inputs of the prefix are missing, such as 'layers/0' of the params"
    ):
        split.prefix({}, BATCH)
    with pytest.raises(ValueError, match="inputs of the suffix are missing"):
        split.suffix(trainable, frozen, None, split.prefix(frozen, BATCH), {}, None)


def test_function_with_other_operations_for_few_examples(params):
    def function(params, state, batch, key):
        return network(params, state, {"x": jnp.tanh(batch["x"]) if len(batch["x"]) > 2 else batch["x"]}, key)

    split = split_frozen(function, params, frozen_layers(2), BATCH)
    _, frozen = partition(params, frozen_layers(2))
    other = {"layers": [params["layers"][0] + 1, *params["layers"][1:]]}
    assert split.digest(frozen) == split.digest(frozen) != split.digest(other)
    with pytest.raises(
        ValueError, match="other operations for 2 examples than for 4; use batches of one size"
    ):
        split.prefix(frozen, {"x": BATCH["x"][:2]})
