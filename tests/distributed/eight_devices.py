"""The same numbers on one device, on a mesh and by pmap. `test_sharding.py` runs this on eight devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.data import Augmentation
from transfer_jax.distributed.sharding import Strategy
from transfer_jax.freezing import Phase
from transfer_jax.models import create_model
from transfer_jax.nn import batch_shard
from transfer_jax.report.progress import Silent
from transfer_jax.training.compile import compile_function
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.training.state import TrainState

KINDS = {
    "mesh": {"strategy": "mesh"},
    "fsdp": {"strategy": "mesh", "fsdp": 4},
    "slices": {"strategy": "auto", "fsdp": 2, "slices": 2},
    "update": {"strategy": "mesh", "shard_update": True, "slices": 2},
    "pmap": {"strategy": "pmap"},
}
LIVELY = Augmentation(crop_scale=(0.5, 1.0), mixup=0.4, cutmix=0.5)
STEPS = 4


def trained(make_run, phase, steps=STEPS, predicts=False, **settings):
    run = make_run(phase, **{"batch_size": 16, "val_fraction": 0.5, **settings})
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    batches = iter(trainer.data.train)
    metrics = [trainer.step(next(batches), trainer.parts.rates(step)) for step in range(steps)]
    return trainer, metrics, jax.device_get(trainer.all_arrays()), trainer.predict() if predicts else 0.0


PHASES = {
    "everything": (
        Phase(name="one", train="all_()", epochs=20, optimizer="adamw", learning_rate=1e-3, clip_norm=1.0),
        {"ema_decay": 0.9, "predicts": True},
    ),
    "in parts": (
        Phase(name="one", train="all_()", norm="train", epochs=20, learning_rate=0.01),
        {"accumulate": 2, "drop_path": 0.0},
    ),
    "augmented": (
        Phase(name="one", train="from_('top')", norm="train", augment=True, epochs=20, learning_rate=0.01),
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
        {"label_smoothing": 0.1, "predicts": True},
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
}
CASES = [
    *(("everything", kind) for kind in ("mesh", "fsdp", "update", "pmap")),
    *(("in parts", kind) for kind in ("update", "pmap")),
    *(("augmented", kind) for kind in ("slices", "pmap")),
    ("features", "mesh"),
    ("own optimizer", "fsdp"),
]
"""Each kind and each phase: a compilation takes two seconds."""


@pytest.fixture(scope="module")
def alone():
    """The results of one device by phase, which is trained once."""
    return {}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_numbers_are_those_of_one_device(make_run, make_toy, alone, name, kind):
    phase, settings = PHASES[name]
    settings = {"toy": make_toy(hidden=(64,), dropout=0.3), **settings}
    many = trained(make_run, phase, **settings, **KINDS[kind])
    one = alone[name] if name in alone else trained(make_run, phase, **settings)
    alone[name] = one
    for expected, found in zip(one[1], many[1], strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for path, expected in one[2].items():
        np.testing.assert_allclose(many[2][path], expected, rtol=1e-3, atol=1e-4, err_msg=path)
    np.testing.assert_allclose(many[3], one[3], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "optimizer"),
    [
        ({"tensor": 2, "fsdp": 4}, "sgd"),
        ({"tensor": 2}, "optax.novograd"),  # It has a scalar for each parameter.
    ],
)
def test_matrices_are_sharded(make_run, options, optimizer):
    """Matrices along `tensor`, large arrays along `fsdp`: less on each device, the same numbers."""
    phase = Phase(name="one", train="all_()", epochs=20, optimizer=optimizer, learning_rate=0.05)
    model = create_model("vit_nano_patch8_32", 3, image_size=16)
    one, many = (trained(make_run, phase, toy=model, **how) for how in ({}, {"strategy": "mesh", **options}))
    for expected, found in zip(one[1], many[1], strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for path, expected in one[2].items():
        np.testing.assert_allclose(many[2][path], expected, rtol=1e-3, atol=1e-4, err_msg=path)
    state = many[0].state
    whole, own = _bytes(state), _bytes(_first(state))
    assert own < whole / (options.get("tensor", 1) * options.get("fsdp", 1)) * 1.4
    sharding: Any = state.trainable["backbone/blocks.1/attn/qkv/kernel"].sharding
    assert [axis for axis in sharding.spec if axis] == [
        axis for axis in ("fsdp", "tensor") if axis in options
    ]


def test_blocks_are_gathered_in_both_passes(make_run):
    """The forward pass keeps no gathered array for the backward pass."""
    phase = Phase(name="one", train="all_()", epochs=20, learning_rate=0.05)
    model = create_model("vit_nano_patch8_32", 3, image_size=16)
    run = make_run(phase, toy=model, batch_size=16, strategy="mesh", fsdp=8)
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    batch = run.strategy.batch({name: values[0] for name, values in trainer.sample(1).items()})
    arguments = trainer.state, trainer.frozen, batch, trainer.parts.rates(0)
    text = str(jax.make_jaxpr(trainer.programs.functions["step"])(*arguments))
    arrays = trainer.state.trainable
    sharded = [path for path in arrays if "fsdp" in arrays[path].sharding.spec]
    # The gradient of the patches needs no kernel.
    in_blocks = [path for path in sharded if path.startswith("backbone/blocks.")]
    assert in_blocks
    assert text.count("all_gather[") == len(sharded) + len(in_blocks)


def test_only_the_training_state_is_sharded_for_a_sharded_update(make_run):
    phase = Phase(name="one", train="from_('blocks.1')", epochs=20, optimizer="adamw", learning_rate=0.05)
    model = create_model("vit_nano_patch8_32", 3, image_size=16)
    run = make_run(phase, toy=model, batch_size=16, strategy="mesh", shard_update=True)
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    state = trainer.state
    sizes = [(tree, _first(tree)) for tree in (state.trainable, state.opt_state, trainer.frozen)]
    trained_part, moments, frozen = (_bytes(own) / _bytes(whole) for whole, own in sizes)
    assert trained_part < 1.4 / 8
    assert moments < 1.4 / 8
    assert frozen == 1
    assert all(array.sharding.is_fully_replicated for array in trainer.all_arrays().values())


@pytest.mark.parametrize("options", [{}, {"fsdp": 4}, {"shard_update": True, "slices": 2}])
@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", 0, 1e-6), ("bfloat16", 1e-4, 3e-3)])
def test_gradients_are_exchanged_in_a_precision(options, dtype, least, most):
    """The relative error of the mean gradient, against float64; a bfloat16 has 8 bits."""
    strategy = Strategy.of("mesh", **options)
    rng = np.random.default_rng(0)
    scale = rng.normal(1, 0.5, (8, 1)).astype(np.float32)
    arrays = {"kernel": rng.normal(size=(64, 32)).astype(np.float32), "bias": np.ones(32, np.float32)}

    def gradients(trainable, stats, frozen, batch, key):
        def loss(trainable):
            trainable = batch_shard.gather(trainable, dict.fromkeys(trainable, jnp.float32))
            return sum((batch["scale"] * jnp.sin(value).sum()).sum() for value in trainable.values())

        return (jax.grad(loss)(trainable), {}), stats

    trainable = strategy.place(TrainState.create(arrays, optax.sgd(0.1))).trainable
    arguments = trainable, {}, {}, strategy.batch({"scale": scale}), jax.random.key(0)
    (found, _), _ = jax.jit(strategy.average(gradients, exchanged=dtype))(*arguments)
    assert found["kernel"].sharding.is_equivalent_to(trainable["kernel"].sharding, 2)
    for path, array in arrays.items():
        expected = np.float64(scale).mean() * np.cos(np.float64(array))
        error = np.linalg.norm(np.float64(found[path]) - expected) / np.linalg.norm(expected)
        assert found[path].dtype == np.float32
        assert error <= most
        assert path != "kernel" or error >= least


def _first(tree):
    """What the first device holds."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def _bytes(tree):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def test_batch_statistics_of_each_device(make_run):
    """A device normalizes by its own shard, in a mesh as by pmap, and not by the whole batch."""
    phase = Phase(name="one", train="all_()", norm="train", epochs=20, learning_rate=0.01)
    own = {"batch_norm": "per_device", "drop_path": 0.0}
    mesh, pmap = (trained(make_run, phase, **own, **KINDS[kind])[1] for kind in ("mesh", "pmap"))
    whole = trained(make_run, phase, 1, drop_path=0.0)[1]
    for one, other in zip(mesh, pmap, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert abs(mesh[0]["loss"] - whole[0]["loss"]) > 1e-3


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
        (
            {"shard_update": True, "fsdp": 2, "strategy": "mesh"},
            r"shard_update needs strategy='mesh' and fsdp=1, got strategy='mesh' and fsdp=2; fsdp shards",
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


def test_programs_for_other_devices_are_others():
    halves = jax.devices()[:4], jax.devices()[4:]
    for devices in halves:
        strategy = Strategy.of("mesh", devices=devices)
        batch = strategy.batch({"x": np.arange(8.0)})
        doubled = compile_function(lambda batch: batch["x"] * 2, batch, strategy=strategy, batch=0)(batch)
        assert {*doubled.devices()} == {*devices}
        np.testing.assert_array_equal(doubled, 2 * np.arange(8.0))
