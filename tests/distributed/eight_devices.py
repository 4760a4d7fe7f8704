"""The same numbers on one device, on a mesh and by pmap. `test_sharding.py` runs this on eight devices."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from transfer_jax.data import Augmentation
from transfer_jax.freezing import Phase
from transfer_jax.models import create_model
from transfer_jax.report.progress import Silent
from transfer_jax.training.phase_trainer import PhaseTrainer

KINDS = {
    "mesh": {"strategy": "mesh"},
    "fsdp": {"strategy": "mesh", "fsdp": 4},
    "slices": {"strategy": "auto", "fsdp": 2, "slices": 2},
    "pmap": {"strategy": "pmap"},
}
LIVELY = Augmentation(crop_scale=(0.5, 1.0), mixup=0.4, cutmix=0.5)


def trained(make_run, phase, steps, **settings):
    run = make_run(phase, **{"batch_size": 16, "val_fraction": 0.5, **settings})
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    batches = iter(trainer.data.train)
    metrics = [trainer.step(next(batches), trainer.parts.rates(step)) for step in range(steps)]
    return trainer, metrics, jax.device_get(trainer.all_arrays()), trainer.predict()


PHASES = {
    "everything": (
        Phase(name="one", train="all_()", epochs=20, optimizer="adamw", learning_rate=1e-3, clip_norm=1.0),
        {},
    ),
    "batch statistics": (
        Phase(name="one", train="all_()", norm="train", epochs=20, learning_rate=0.01),
        {"drop_path": 0.0},
    ),
    "in parts": (
        Phase(name="one", train="all_()", norm="train", epochs=20, learning_rate=0.01),
        {"accumulate": 2},
    ),
    "augmented": (
        Phase(name="one", train="from_('top')", augment=True, epochs=20, learning_rate=0.01),
        {"augmentation": LIVELY},
    ),
    "features": (
        Phase(
            name="one",
            train="from_('blocks.11')",
            feature_brightness=0.2,
            feature_flips="both",
            epochs=20,
            learning_rate=0.01,
        ),
        {},
    ),
    "own optimizer": (
        Phase(
            name="one",
            train="all_()",
            epochs=20,
            optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.lamb(0.01, weight_decay=0.1)),
            layer_decay=0.8,
            shape=optax.linear_schedule(1.0, 0.5, 10),
        ),
        {"loss": lambda logits, targets: optax.safe_softmax_cross_entropy(2 * logits, targets)},
    ),
    "head": (
        Phase(name="one", train="head", epochs=20, learning_rate=0.01),
        {"ema_decay": 0.9, "label_smoothing": 0.1},
    ),
}


ALONE = {}
"""The results of one device by phase, which is trained once."""
STEPS = 6
CASES = [
    (name, kind)
    for name in PHASES
    for kind in KINDS
    if kind not in ("fsdp", "slices") or name in ("everything", "own optimizer", "head")
]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_numbers_are_those_of_one_device(make_run, make_toy, name, kind):
    phase, settings = PHASES[name]
    settings = {"toy": make_toy(hidden=(64,), dropout=0.3), **settings}
    many = trained(make_run, phase, STEPS, **settings, **KINDS[kind])
    one = ALONE[name] if name in ALONE else trained(make_run, phase, STEPS, **settings)
    ALONE[name] = one
    for expected, found in zip(one[1], many[1], strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for path, expected in one[2].items():
        np.testing.assert_allclose(many[2][path], expected, rtol=1e-3, atol=1e-4, err_msg=path)
    np.testing.assert_allclose(many[3], one[3], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        ({"tensor": 2}, "sgd"),
        ({"tensor": 2, "fsdp": 2}, "sgd"),
        ({"fsdp": 8}, "sgd"),
        ({"tensor": 2}, "optax.novograd"),  # It has a scalar for each parameter.
    ],
)
def test_matrices_are_spread(make_run, options, optimizer):
    """Matrices along `tensor`, large arrays along `fsdp`: less on each device, the same numbers."""
    phase = Phase(name="one", train="all_()", epochs=20, optimizer=optimizer, learning_rate=0.05)
    model = create_model("vit_nano_patch8_32", 3, image_size=16)
    kind = {"strategy": "mesh", **options}
    one, many = (trained(make_run, phase, 5, toy=model, **each) for each in ({}, kind))
    for expected, found in zip(one[1], many[1], strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    np.testing.assert_allclose(many[3], one[3], atol=1e-4)
    state = many[0].state
    whole, own = ((sum(leaf.nbytes for leaf in jax.tree.leaves(tree))) for tree in (state, _first(state)))
    assert own < whole / (options.get("tensor", 1) * options.get("fsdp", 1)) * 1.4
    sharding: Any = state.trainable["backbone/blocks.1/attn/qkv/kernel"].sharding
    assert [axis for axis in sharding.spec if axis] == [
        axis for axis in ("fsdp", "tensor") if axis in options
    ]


def _first(tree):
    """What the first device holds."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def test_batch_statistics_of_each_device(make_run):
    """What a device normalizes by is its own share, in a mesh as by pmap, and not the whole batch."""
    phase, _ = PHASES["batch statistics"]
    own = {"batch_norm": "per_device"}
    mesh, pmap, whole = (
        trained(make_run, phase, 5, **each, **how)[1]
        for each, how in ((KINDS["mesh"], own), (KINDS["pmap"], own), (KINDS["mesh"], {}))
    )
    for one, other, different in zip(mesh, pmap, whole, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
        assert abs(one["loss"] - different["loss"]) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fsdp": 3, "strategy": "mesh"},
            r"devices, 8, is not a multiple of fsdp=3 times tensor=1",
        ),
        (
            {"fsdp": 2, "strategy": "pmap"},
            r"fsdp=2, tensor=1 and slices=1 need strategy='mesh', got 'pmap'",
        ),
        ({"slices": 3}, r"8, is not a multiple of fsdp=1 times tensor=1 times slices=3; choose other values"),
        (
            {"batch_size": 12, "strategy": "mesh"},
            r"12 images is not divisible by 8 devices; choose a",
        ),
        (
            {"batch_size": 8, "accumulate": 2, "strategy": "mesh"},
            r"by 8 devices in 2 parts each; choose a batch_size that is a multiple of 16",
        ),
        ({"batch_size": 16, "strategy": "mesh", "feature_tier": "device"}, "needs strategy='jit'"),
    ],
)
def test_invalid_combinations(make_run, options, message):
    phase = Phase(name="one", train="head", epochs=1, learning_rate=0.1)
    with pytest.raises(ValueError, match=message):
        trained(make_run, phase, 1, **{"batch_size": 16, **options})


def test_devices_of_a_cpu_are_left_alone(make_run):
    phase = Phase(name="one", train="head", epochs=1, learning_rate=0.1)
    assert jax.device_count() == 8
    assert make_run(phase).strategy.mesh is None
