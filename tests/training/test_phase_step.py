import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.features import make_prefix
from transfer_jax.models import create_model
from transfer_jax.nn.flops import jaxpr_multiply_adds
from transfer_jax.training.compile import compile_function
from transfer_jax.training.phase_step import make_eval_step


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def run(made, batch, steps: int = 1):
    step, state, metrics = jax.jit(made.step), made.state, []
    for _ in range(steps):
        state, found = step(state, made.frozen, batch, made.rates)
        metrics.append({name: float(value) for name, value in found.items()})
    return state, metrics


@pytest.fixture(scope="module")
def live(make_toy, batch):
    """Pooled features and logits of the toy network for the batch, as arrays."""
    model = make_toy()
    x = (batch["image"].astype(np.float32) - 127) / 64
    features = model.backbone(jnp.asarray(x))
    return np.asarray(features, np.float64), np.asarray(model.head(features), np.float64)


def test_a_head_step_by_hand(make_toy, make_step, batch, live, sgd):
    features, logits = live
    made = make_step(make_toy(), sgd("head"))
    state, (metrics,) = run(made, batch)
    error = (softmax(logits) - np.eye(3)[batch["label"]]) / 12
    kernel, bias = features.T @ error, error.sum(0)
    path = "head/classifier/kernel"
    np.testing.assert_allclose(
        state.trainable[path] - made.state.trainable[path], -kernel, rtol=1e-3, atol=1e-6
    )
    assert metrics["grad_norm"] == pytest.approx(np.sqrt((kernel**2).sum() + (bias**2).sum()), rel=1e-4)
    assert metrics["loss"] == pytest.approx(
        -np.log(softmax(logits)[np.arange(12), batch["label"]]).mean(), rel=1e-4
    )
    assert metrics["accuracy"] == pytest.approx((logits.argmax(-1) == batch["label"]).mean())
    assert int(state.step) == 1


def test_smoothing_and_class_weights_by_hand(make_toy, make_step, batch, live, sgd):
    weights = np.array([0.5, 2.0, 4.0])
    made = make_step(make_toy(), sgd("head"), class_weights=weights, label_smoothing=0.3)
    targets = 0.7 * np.eye(3)[batch["label"]] + 0.1
    losses = -(targets * np.log(softmax(live[1]))).sum(-1) * (targets @ weights)
    assert run(made, batch)[1][0]["loss"] == pytest.approx(losses.mean(), rel=1e-4)


def test_weights_of_images_by_hand(make_toy, make_step, batch, live, sgd):
    made, weights = make_step(make_toy(), sgd("head")), np.linspace(0.1, 1.9, 12).astype(np.float32)
    losses = -np.log(softmax(live[1])[np.arange(12), batch["label"]])
    found = run(made, {**batch, "weight": weights})[1][0]
    assert found["loss"] == pytest.approx((losses * weights).mean(), rel=1e-4)


@pytest.mark.parametrize("accumulate", [2, 3, 12])
def test_accumulated_parts_are_the_whole_batch(make_toy, make_step, batch, accumulate, sgd):
    options = {"class_weights": (0.5, 2.0, 4.0), "label_smoothing": 0.1}
    whole, parts = (
        run(make_step(make_toy(), sgd("top(2)", clip_norm=1.0), accumulate=count, **options), batch)
        for count in (1, accumulate)
    )
    for path, array in whole[0].trainable.items():
        np.testing.assert_allclose(parts[0].trainable[path], array, rtol=1e-5, atol=1e-6, err_msg=path)
    assert parts[1][0] == pytest.approx(whole[1][0], rel=1e-5)


def test_moving_average_by_hand(make_toy, make_step, batch, sgd):
    made = make_step(make_toy(), sgd("head"), ema_decay=0.75)
    path, step, state = "head/classifier/bias", jax.jit(made.step), made.state
    expected = np.asarray(state.trainable[path])
    for _ in range(3):
        state, _ = step(state, made.frozen, batch, made.rates)
        expected = 0.75 * expected + 0.25 * np.asarray(state.trainable[path])
    np.testing.assert_allclose(state.ema[path], expected, rtol=1e-5, atol=1e-7)
    assert set(state.ema) == set(state.trainable)
    np.testing.assert_array_equal(state.averaged()[path], state.ema[path])


def test_running_statistics_by_hand(make_toy, make_step, batch, sgd):
    model = make_toy()
    made = make_step(model, sgd("blocks('stem') | head", norm="train"))
    state, _ = run(made, batch)
    x = model.backbone.stem.conv((jnp.asarray(batch["image"], jnp.float32) - 127) / 64)
    assert set(state.model_state) == {"backbone/stem/norm/mean", "backbone/stem/norm/var"}
    mean, var = (state.model_state[f"backbone/stem/norm/{name}"] for name in ("mean", "var"))
    np.testing.assert_allclose(mean, 0.01 * x.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(var, 0.99 + 0.01 * x.var((0, 1, 2)), rtol=1e-4)


def test_running_statistics_are_updated_in_bfloat16(make_toy, make_step, batch, sgd):
    made = [
        make_step(make_toy(), sgd("top(1)", norm="train"), dtype=dtype)
        for dtype in (jnp.float32, jnp.bfloat16)
    ]
    single, half = (run(one, batch, steps=20)[0].model_state["backbone/top/norm/var"] for one in made)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(1 - half, 1 - single, rtol=0.05)


def test_bfloat16_computes_in_half_and_keeps_float32(make_toy, make_step, batch, sgd):
    made = make_step(make_toy(), sgd("top(2)"), dtype=jnp.bfloat16)
    traced = jax.jit(made.step).trace(made.state, made.frozen, batch, made.rates)
    text = traced.lower(lowering_platforms=("cpu",)).as_text()  # where convolutions are products
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    exact = [line for line in products if "bf16" not in line]
    assert len(products) > 5
    assert len(exact) == 1  # targets times class weights
    state, (metrics,) = run(made, batch)
    assert {str(array.dtype) for array in state.trainable.values()} == {"float32"}
    single = run(make_step(make_toy(), sgd("top(2)")), batch)[1][0]
    assert metrics["loss"] == pytest.approx(single["loss"], rel=0.02)
    assert metrics["loss"] != single["loss"]


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}, {}])
def test_randomness_follows_seed_and_step(make_toy, make_step, batch, mixing, sgd):
    toy = make_toy(dropout=0.0 if mixing else 0.5)
    frozen_rate = sgd("head", learning_rate=1e-30)
    first, again, other = (
        run(make_step(toy, frozen_rate, seed=seed, **mixing), batch, 2)[1] for seed in (0, 0, 1)
    )
    assert first == again
    losses = [found["loss"] for found in (*first, *other)]
    assert len(set(losses)) == 4
    if mixing.get("mixup"):  # mixed images, but whole labels
        assert all(found["accuracy"] in [pytest.approx(k / 12) for k in range(13)] for found in first)


def test_another_rate_compiles_nothing(make_toy, make_step, batch, sgd):
    made = make_step(make_toy(), sgd("top(1)"))
    traced = []

    @jax.jit
    def step(*args):
        traced.append(1)
        return made.step(*args)

    one, _ = step(made.state, made.frozen, batch, made.rates)
    two, _ = step(
        made.state, made.frozen, batch, {name: np.float32(0.5) * rate for name, rate in made.rates.items()}
    )
    assert traced == [1]
    path = "head/classifier/bias"
    moved = [np.asarray(state.trainable[path] - made.state.trainable[path]) for state in (one, two)]
    np.testing.assert_allclose(moved[1], moved[0] / 2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("train", ["head", "top(1)", "from_('blocks.1')"])
def test_a_step_on_features_is_the_step_on_images(make_toy, make_step, batch, train, sgd):
    model = make_toy()
    live, cached = (make_step(model, sgd(train), cached=cached) for cached in (False, True))
    prefix = jax.jit(make_prefix(live.graphdef, live.boundary, live.forward.preprocessing, jnp.float32))
    features = prefix(live.arrays, {"image": batch["image"]})
    results = [run(live, batch), run(cached, {"features": features, "label": batch["label"]})]
    assert results[1][1][0] == pytest.approx(results[0][1][0], rel=1e-5)
    for path, array in results[0][0].trainable.items():
        np.testing.assert_allclose(results[1][0].trainable[path], array, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("train", ["head", "top(1)", "from_('blocks.1')"])
def test_a_separate_prefix_changes_no_number(make_toy, make_step, batch, train, sgd):
    model = make_toy()
    together, apart = (make_step(model, sgd(train), sliced=sliced) for sliced in (False, True))
    results = [run(together, batch), run(apart, batch)]
    assert results[1][1][0] == pytest.approx(results[0][1][0], rel=1e-5)
    for path, array in results[0][0].trainable.items():
        np.testing.assert_allclose(results[1][0].trainable[path], array, rtol=1e-5, atol=1e-6, err_msg=path)
    traced = jax.jit(apart.step).trace(apart.state, apart.frozen, batch, apart.rates)
    loops = {
        platform: "stablehlo.while" in traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert loops == {"cpu": True, "cuda": False, "tpu": False}


def largest_error(made, images, expected):
    """Runs a step, and returns the largest relative error of a change of a parameter."""
    state, metrics = run(made, images)
    errors = []
    for part in ("trainable", "model_state"):
        before, one, other = (getattr(each, part) for each in (made.state, expected[0], state))
        for path in before:
            change = np.linalg.norm(one[path] - before[path])
            errors.append(np.linalg.norm(other[path] - one[path]) / (change + 1e-4))
    errors.append(abs(metrics[0]["loss"] / expected[1][0]["loss"] - 1))
    return max(errors)


@pytest.fixture(scope="module")
def nano():
    """A transformer of three blocks with dropped paths, and a batch."""
    rng = np.random.default_rng(0)
    images = {
        "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
        "label": (np.arange(8) % 3).astype(np.int32),
    }
    return create_model("vit_nano_patch8_32", 3, drop_path=0.3, dropout=0.1), images


@pytest.fixture(scope="module")
def nano_step(nano, make_step, sgd):
    model, images = nano
    made = make_step(model, sgd("all_()"))
    return made, run(made, images)


@pytest.mark.parametrize("remat", ["dots", pytest.param("block", marks=pytest.mark.extended)])
def test_rematerialization_recomputes_and_changes_no_number(nano, nano_step, make_step, sgd, remat):
    model, images = nano
    made = make_step(model, sgd("all_()"), remat=remat)
    assert largest_error(made, images, nano_step[1]) < 1e-4
    flops = [
        jaxpr_multiply_adds(jax.make_jaxpr(each.step)(each.state, each.frozen, images, each.rates).jaxpr)
        for each in (nano_step[0], made)
    ]
    assert flops[1] > {"dots": 1.01, "block": 1.2}[remat] * flops[0]


@pytest.mark.parametrize(
    "train", ["from_('blocks.1')", pytest.param("role('norm') | head", marks=pytest.mark.extended)]
)
def test_a_scan_of_equal_blocks_changes_no_number(nano, make_step, sgd, train):
    model, images = nano
    expected = run(make_step(model, sgd(train)), images)
    scanned = make_step(model, sgd(train), scan_layers=True)
    assert largest_error(scanned, images, expected) < 1e-4
    text = str(jax.make_jaxpr(scanned.step)(scanned.state, scanned.frozen, images, scanned.rates))
    assert text.count("scan[") >= 1


@pytest.mark.extended
def test_a_scan_and_rematerialization_together(nano, nano_step, make_step, sgd):
    model, images = nano
    made = make_step(model, sgd("all_()"), scan_layers=True, remat="block")
    assert largest_error(made, images, nano_step[1]) < 1e-4


@pytest.mark.extended
def test_rematerialization_saves_memory(nano, make_step, sgd):
    model, images = nano
    made = [make_step(model, sgd("all_()"), remat=remat) for remat in ("none", "block")]
    images = {name: np.tile(array, (8, *(1,) * (array.ndim - 1))) for name, array in images.items()}
    plain, remat = (compile_function(each.step, each.state, each.frozen, images, each.rates) for each in made)
    assert remat.multiply_adds > 1.2 * plain.multiply_adds
    # XLA for CPUs merges repeated computations before jax 0.12.
    if jax.__version_info__ >= (0, 12, 0):
        assert plain.peak_bytes
        assert remat.peak_bytes
        assert remat.peak_bytes < 0.8 * plain.peak_bytes


@pytest.mark.parametrize("prefix", [None, "blocks.11", "pre_logits"])
def test_evaluation_gives_the_logits(make_toy, make_step, batch, live, sgd, prefix):
    made = make_step(make_toy(), sgd("head"))
    step = make_eval_step(dataclasses.replace(made.forward, graphdef=made.graphdef, prefix=prefix))
    np.testing.assert_allclose(
        jax.jit(step)(made.arrays, {"image": batch["image"]}), live[1], rtol=1e-3, atol=1e-5
    )
