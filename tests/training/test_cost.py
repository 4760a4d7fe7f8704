"""The operations of a training step, as XLA counts them in the compiled programs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import merge
from transfer_jax.training.compile import compile_function
from transfer_jax.training.phase_step import make_eval_step

IMAGES = np.zeros((8, 32, 32, 3), np.uint8)
LABELS = np.zeros(8, np.int32)
CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1))
HEAD_FLOPS = 2 * 8 * 1280 * 3


@pytest.fixture(scope="module")
def tiny():
    model = create_model("efficientnet_lite_tiny", 3)
    model.eval()
    return model


def flops(function, *args, donate=()) -> float:
    found = compile_function(function, *args, donate=donate).flops
    assert found is not None
    return found


def step_flops(made, batch) -> float:
    return flops(made.step, made.state, made.frozen, batch, made.rates, donate=(0,))


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="XLA counts nothing of libraries that it calls")
@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"clip_norm": 1.0}, {"ema_decay": 0.99, "label_smoothing": 0.1}),
        ({"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": 1.0, "norm": "train"}, {"ema_decay": 0.99}),
        ({"optimizer": optax.MultiSteps(optax.apply_if_finite(CLIPPED, 3), 2)}, {}),
    ],
)
def test_a_live_head_step_costs_a_forward_pass_and_the_head(tiny, make_step, changes, options, sgd):
    made = make_step(tiny, sgd("head", **changes), **options)
    evaluation = make_eval_step(dataclasses.replace(made.forward, graphdef=made.graphdef))
    forward = flops(evaluation, made.arrays, {"image": IMAGES})
    assert forward > 50 * HEAD_FLOPS  # so that a backward pass would show
    # `forward` has the head once, and backward has it twice
    step = step_flops(made, {"image": IMAGES, "label": LABELS})
    assert forward <= step <= 1.05 * (forward + 2 * HEAD_FLOPS)


def test_the_backward_pass_stops_at_the_boundary(tiny, make_step, sgd):
    live, cached = (make_step(tiny, sgd("top(2)", clip_norm=1.0), cached=cached) for cached in (False, True))
    normalize = live.forward.preprocessing.normalize

    def prefix(arrays, images):  # not `make_prefix`: it loops on a CPU, and XLA counts a loop's body once
        return merge(live.graphdef, arrays).backbone(normalize(images), stop=live.boundary)

    features = jax.eval_shape(prefix, live.arrays, IMAGES)
    below = flops(prefix, live.arrays, IMAGES)
    above = step_flops(cached, {"features": features, "label": LABELS})
    assert step_flops(live, {"image": IMAGES, "label": LABELS}) == pytest.approx(below + above, rel=0.02)
    assert below > 0.3 * above  # a backward pass through the prefix would cost twice that


def by_hand(made, start: str | None):
    """A step with label smoothing, two parts of a batch, clipping, AdamW and a moving average.

    It has the trainable arrays alone: nothing that a frozen array could cost.
    """

    def loss(trainable, frozen, x, labels):
        model = merge(made.forward.graphdef, {**frozen, **trainable})
        x = made.forward.preprocessing.normalize(x) if start is None else x
        logits = model(x, start=start)
        targets = 0.9 * jax.nn.one_hot(labels, 3) + 0.1 / 3
        return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()

    def step(params, moments, averages, count, frozen, images, labels, rates):
        def part(total, item):
            value, grads = jax.value_and_grad(loss)(params, frozen, *item)
            return jax.tree.map(jnp.add, total, (grads, value)), None

        parts = (images.reshape(2, -1, *images.shape[1:]), labels.reshape(2, -1))
        zeros = (jax.tree.map(jnp.zeros_like, params), 0.0)
        (grads, value), _ = jax.lax.scan(part, zeros, parts)
        grads = jax.tree.map(lambda g: g / 2, grads)
        norm = jnp.sqrt(sum((g * g).sum() for g in grads.values()))
        after = {}
        for path, param in params.items():
            grad = grads[path] * jnp.minimum(1.0, 1.0 / norm)
            first = 0.9 * moments[path][0] + 0.1 * grad
            second = 0.999 * moments[path][1] + 0.001 * grad * grad
            update = first / (1 - 0.9**count) / (jnp.sqrt(second / (1 - 0.999**count)) + 1e-8)
            update += 0.1 * param if param.ndim > 1 else 0.0
            param = param - rates[path.split("/")[1] if path.startswith("backbone") else "head"] * update
            after[path] = (param, (first, second), 0.99 * averages[path] + 0.01 * param)
        return *({path: each[i] for path, each in after.items()} for i in range(3)), count + 1, value, norm

    return step


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("train", ["head", "top(2)", "all_()"])
def test_a_step_costs_what_one_written_by_hand_does(toy, tiny, make_step, train, cached, sgd):
    # The toy's head alone has so few operations that those of counters would show.
    model = tiny if train == "head" and cached else create_model(toy, 3)
    model.eval()
    phase = sgd(train, optimizer="adamw", momentum=0.9, weight_decay=0.1, clip_norm=1.0)
    made = make_step(model, phase, cached=cached, accumulate=2, ema_decay=0.99, label_smoothing=0.1)
    start = made.boundary if cached else None
    x = IMAGES
    if start is not None:
        x = jax.eval_shape(lambda x: model.backbone(x, stop=start), np.zeros(IMAGES.shape, np.float32))
    ours = compile_function(
        made.step, made.state, made.frozen, {"features" if start else "image": x, "label": LABELS}, made.rates
    )
    params = made.state.trainable
    moments = {path: (array, array) for path, array in params.items()}
    count = jnp.ones((), jnp.int32)
    theirs = compile_function(
        by_hand(made, start), params, moments, params, count, made.frozen, x, LABELS, made.rates
    )
    assert ours.flops == pytest.approx(theirs.flops, rel=0.02)
    assert ours.bytes == pytest.approx(theirs.bytes, rel=0.02)
