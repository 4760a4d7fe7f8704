"""Training of models of someone else by `fit`, from Python and from the command line."""

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx
from networks_of_others import MAKERS, SMALL, NnxNetwork, nnx_model
from safetensors.numpy import load_file

from transfer_jax import Phase, Schedule, TrainConfig, create_model, fit, from_examples, own_model
from transfer_jax.runs.loop import Loop
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.storage import workdir_files
from transfer_jax.weights.saved_model import SavedModel

FIVE_STEPS = Schedule(
    (
        Phase(name="head", train="head", epochs=12, learning_rate=0.1),
        Phase(name="top", train="top(1)", epochs=2, learning_rate=1e-2),
        Phase(name="all", train="all_()", epochs=1, learning_rate=1e-3),
    )
)


def config(**settings) -> TrainConfig:
    return TrainConfig(**{"images": "mine", "schedule": FIVE_STEPS, "batch_size": 8, **settings})


@pytest.fixture(scope="module")
def colours():
    """Two classes of images that differ in their colour."""
    rng = np.random.default_rng(0)
    means = np.array([[200, 40, 40], [40, 40, 200]])
    images = [means[i % 2] + rng.integers(-40, 40, (16, 16, 3)) for i in range(40)]
    source = [{"image": x.astype(np.uint8), "label": "rb"[i % 2]} for i, x in enumerate(images)]
    return from_examples(source)


@pytest.mark.parametrize("kind", MAKERS)
def test_five_steps(kind, colours, tmp_path):
    result = fit(config(), tmp_path, dataset=colours, model=MAKERS[kind]())
    boundaries = {
        "nnx": ("pre_logits", "features.1", None),
        "linen": ("pre_logits", "Conv_2", None),
        "function": ("pre_logits", "left", None),
    }
    assert tuple(phase.boundary for phase in result.phases) == boundaries[kind]
    flops = [phase.step_flops or 0 for phase in result.phases]
    assert flops == sorted(flops)
    assert len({*flops}) == 3
    assert result.phases[-1].metrics["accuracy"] > 0.9
    assert len([*(tmp_path / workdir_files.FREEZE_RECORDS).iterdir()]) == 3
    trained = load_file(tmp_path / "model" / "weights.safetensors")
    assert {path.split("/")[0] for path in trained} == {"backbone", "head"}
    assert SavedModel.describe(tmp_path).model in ("NnxNetwork", "LinenNetwork", "function")
    probabilities = predict_dataset(tmp_path, colours)
    assert (probabilities.argmax(-1) == colours.labels).mean() > 0.9


@pytest.mark.parametrize("kind", MAKERS)
def test_precision_and_a_mesh(kind, colours, tmp_path):
    half = (
        {"precision": "bfloat16"} if kind != "nnx" else {"precision": "bfloat16", "feature_precision": "int8"}
    )
    schedule = Schedule((Phase(name="top", train="top(1)", epochs=2, learning_rate=1e-2),))
    result = fit(
        config(schedule=schedule, strategy="mesh", **half), tmp_path, dataset=colours, model=MAKERS[kind]()
    )
    assert result.phases[0].boundary not in (None, "pre_logits")


def stop_after(monkeypatch, phases: int) -> None:
    """Makes a run stop when it begins the next phase."""
    train_phase = Loop._train_phase

    def stopped(self, arrays, previous):
        if self._position.phase == phases:
            raise KeyboardInterrupt
        return train_phase(self, arrays, previous)

    monkeypatch.setattr(Loop, "_train_phase", stopped)


@pytest.mark.parametrize("kind", ["nnx", "function"])
@pytest.mark.parametrize("phases", [1, 2])
def test_a_stopped_run_resumes_bit_for_bit(kind, phases, colours, tmp_path, monkeypatch):
    fit(config(), tmp_path / "whole", dataset=colours, model=MAKERS[kind]())
    with monkeypatch.context() as patch:
        stop_after(patch, phases)
        with pytest.raises(KeyboardInterrupt):
            fit(config(), tmp_path / "stopped", dataset=colours, model=MAKERS[kind]())
    fit(config(), tmp_path / "stopped", dataset=colours, model=MAKERS[kind]())
    whole, stopped = (
        load_file(tmp_path / name / "model/weights.safetensors") for name in ("whole", "stopped")
    )
    assert {*whole} == {*stopped}
    for path, array in whole.items():
        np.testing.assert_array_equal(array, stopped[path], err_msg=path)


def other_parameters():
    return own_model(NnxNetwork(nnx.Rngs(1)), head="fc", preprocessing=SMALL)


def other_operations():
    class Sharper(NnxNetwork):
        def __call__(self, x: jax.Array) -> jax.Array:
            return super().__call__(2 * x)

    return own_model(Sharper(nnx.Rngs(0)), head="fc", preprocessing=SMALL)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (other_parameters, "was started with the weights"),
        (other_operations, "the model computes other operations"),
    ],
)
def test_another_model_does_not_resume_the_run(other, message, colours, tmp_path, monkeypatch):
    named = config(model="mine")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            fit(named, tmp_path, dataset=colours, model=nnx_model())
    with pytest.raises(ValueError, match=message):
        fit(named, tmp_path, dataset=colours, model=other())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "none"}, "weights='none' is not supported for 'mine'"),
        ({"reinitialize": "top(1)"}, "reinitialize='top.1.' is not supported for 'mine'"),
        ({"taps": True}, "taps=True is not supported for 'mine'"),
        ({"model": "vgg16"}, "'vgg16' is a network of this package; choose another name"),
    ],
    ids=["weights", "reinitialize", "taps", "name"],
)
def test_settings_that_need_a_network_of_the_package(settings, message, colours, tmp_path):
    with pytest.raises(ValueError, match=message):
        fit(config(**{"model": "mine", **settings}), tmp_path, dataset=colours, model=nnx_model())


class Words(nn.Module):
    """The mean of word vectors, weighted by a mask, and two dense layers."""

    @nn.compact
    def __call__(self, words: jax.Array, mask: jax.Array) -> jax.Array:
        vectors = nn.Embed(50, 8)(words) * mask[..., None]
        mean = vectors.sum(1) / mask.sum(1, keepdims=True)
        return nn.relu(nn.Dense(8)(nn.relu(nn.Dense(8)(mean))))  # The outer layer is `Dense_0`.


def test_a_model_of_words(tmp_path):
    rng = np.random.default_rng(0)
    source = [
        {
            "words": (rng.integers(0, 25, 6) + 25 * (i % 2)).astype(np.int32),
            "mask": np.float32(np.arange(6) < 2 + i % 5),
            "label": "ab"[i % 2],
        }
        for i in range(48)
    ]
    example = {name: np.stack([source[0][name]] * 2) for name in ("words", "mask")}
    module = Words()
    variables = module.init(jax.random.key(0), example["words"], example["mask"])
    model = own_model(module, variables, inputs=("words", "mask"), batch=example)
    data = from_examples(source, inputs=("words", "mask"), label="label")
    result = fit(config(), tmp_path, dataset=data, model=model)
    assert [phase.boundary for phase in result.phases] == ["pre_logits", "Dense_1", None]
    assert result.phases[-1].metrics["accuracy"] > 0.7
    assert (predict_dataset(tmp_path, data).argmax(-1) == data.labels).mean() > 0.7


def test_other_inputs_than_those_of_the_model(tmp_path):
    source = [{"tokens": np.arange(4, dtype=np.int32), "label": "ab"[i % 2]} for i in range(12)]
    data = from_examples(source, inputs=("tokens",), label="label")
    with pytest.raises(ValueError, match=r"reads images, but the examples are arrays .'tokens'"):
        fit(config(), tmp_path, dataset=data, model=nnx_model())


MODULE = """
    import jax, jax.numpy as jnp
    import flax.linen as nn
    import transfer_jax as tj

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in (6, 8):
                x = nn.relu(nn.Conv(width, (3, 3), strides=2)(x))
            return nn.Dense(10)(x.mean((1, 2)))

    def make():
        variables = Network().init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
        small = tj.Preprocessing(image_size=16, mean=(127.5,) * 3, std=(127.5,) * 3)
        return tj.own_model(Network(), variables, head="Dense_0", preprocessing=small)
"""


@pytest.mark.extended
def test_the_command_line_takes_a_model_of_a_module(image_folder, tmp_path):
    (tmp_path / "networks.py").write_text(textwrap.dedent(MODULE))

    def run(*command: str) -> str:
        found = subprocess.run(
            [sys.executable, "-m", "transfer_jax", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, found.stderr
        return found.stdout

    common = ("--model", "networks:make", "--images", str(image_folder))
    assert "pre_logits" in run("plan", *common)
    epochs = ("--schedule.phases.0.epochs", "2", "--schedule.phases.1.epochs", "2")
    run("train", *common, *epochs, "--workdir", "run")
    assert "red" in run("predict", "run", str(image_folder / "red"))
    assert "accuracy" in run("evaluate", "run").lower()
    run("diagnose", "run")


def test_a_package_provides_a_model_as_entry_point(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "entry_networks.py").write_text(textwrap.dedent(MODULE))
    point = importlib.metadata.EntryPoint("provided", "entry_networks:make", "transfer_jax.models")
    found = {("transfer_jax.models", "provided"): [point]}
    entry_points = lambda group, name: found.get((group, name), [])  # noqa: E731
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert create_model("provided", 2).backbone.block_names == ("Conv_0", "Conv_1", "pre_logits")
    with pytest.raises(ValueError, match="unknown model 'other'"):
        create_model("other", 2)


def test_names_of_modules_that_do_not_exist(tmp_path):
    for name, message in (
        ("no_such_module:make", "there is no module 'no_such_module'"),
        ("json:no_such_function", "the module 'json' has no function 'no_such_function'"),
        ("json:JSONDecoder", "the function returned a JSONDecoder; return transfer_jax.own_model"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(config(model=name), tmp_path)
