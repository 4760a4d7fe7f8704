"""Runs whose optimizer, learning-rate schedule and loss are objects of Python."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import optax
import pytest

from transfer_jax import cli
from transfer_jax.config import TrainConfig, load_config
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.freezing.python_object import MissingObjectError
from transfer_jax.report.progress import Silent
from transfer_jax.runs import fit
from transfer_jax.runs.workdir import read_config

MODULE = """
import optax

SCALE = {scale}


def make(learning_rate):
    return optax.chain(optax.clip_by_global_norm(SCALE), optax.adamw(learning_rate))


def half(step):
    return 0.5 if step < 2 else 0.25
"""


class CrashError(Exception):
    pass


class Crashing(Silent):
    """Raises an error after a number of steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, images: int, **values: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise CrashError


def focal(gamma: float = 2.0):
    """Returns the cross-entropy with less weight on easy examples."""

    def loss(logits, targets):
        return (targets * -((1 - jax.nn.softmax(logits)) ** gamma) * jax.nn.log_softmax(logits)).sum(-1)

    return loss


def clipped(norm: float = 1.0, rate: float = 0.01) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(norm), optax.adamw(rate, weight_decay=0.1))


def config_of(folder: Path, *phases: Phase, **settings) -> TrainConfig:
    values: Any = {
        "model": "toy",
        "weights": "none",
        "batch_size": 12,
        "threads": 1,
        "checkpoint_seconds": 0.0,
    }
    return TrainConfig(images=str(folder), schedule=Schedule(phases), **{**values, **settings})


def config_with_objects(folder: Path, norm: float = 1.0, gamma: float = 2.0) -> TrainConfig:
    """Returns a config whose objects are new ones at each call."""
    one = Phase(name="one", train="head", epochs=1, optimizer=clipped(norm))
    two = Phase(name="two", train="top(1)", epochs=2, optimizer=clipped(norm), layer_decay=0.5)
    three = Phase(
        name="three",
        train="top(2)",
        epochs=1,
        optimizer=lambda rate: optax.MultiSteps(optax.sgd(rate, 0.9), 2),
        shape=lambda step: 0.1 / (1 + step),
    )
    return config_of(folder, one, two, three, loss=focal(gamma), ema_decay=0.9)


@pytest.fixture(scope="module")
def whole(toy, image_folder, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    fit(config_with_objects(image_folder), workdir)
    return workdir


@pytest.mark.parametrize("after", [4, 10])
def test_a_run_that_crashes_in_any_phase_ends_the_same(toy, image_folder, whole, tmp_path, after):
    with pytest.raises(CrashError):
        fit(config_with_objects(image_folder), tmp_path, progress=Crashing(after))
    fit(config_with_objects(image_folder), tmp_path)
    for name in ("model/weights.safetensors", "metrics.jsonl", "predictions.csv", "config.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def test_the_workdir_describes_the_objects(whole):
    stored = json.loads((whole / "config.json").read_text())
    one, _, three = stored["schedule"]["phases"]
    assert one["optimizer"]["description"].startswith(
        "chain(clip_by_global_norm(max_norm=1.0), chain(scale_by"
    )
    assert (one["learning_rate"], one["shape"]) == (1.0, "constant")
    assert "optax.MultiSteps(optax.sgd(rate, 0.9), 2)" in three["optimizer"]["source"]
    assert three["shape"]["description"].startswith("<lambda> (test_given_objects.py:")
    assert stored["loss"]["description"] == "focal(gamma=2.0)"
    assert read_config(whole).to_json() == stored


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": 2.0}, r"schedule\.phases\.0\.optimizer was chain\(clip_by_global_norm\(max_norm=1\.0\).*"
         r"now chain\(clip_by_global_norm\(max_norm=2\.0\)"),
        ({"gamma": 1.0}, r"loss was focal\(gamma=2\.0\) \[\w{8}\], now focal\(gamma=1\.0\)"),
    ],
)  # fmt: skip
def test_another_object_is_refused(toy, image_folder, whole, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(config_with_objects(image_folder, **changes), whole)


def test_a_finished_run_needs_no_objects(toy, whole, image_folder, capsys):
    config = read_config(whole)
    assert len(fit(config, whole).phases) == 3
    out = ["--out", str(image_folder.parent / "predictions.csv")]
    for command in (["evaluate"], ["report"], ["predict", str(image_folder / "red"), *out]):
        assert cli.main([command[0], str(whole), *command[1:]]) == 0, capsys.readouterr()
    assert "clip_by_global_norm(max_norm=1.0)" in (whole / "report.html").read_text()
    assert cli.main(["plan", str(whole / "config.json")]) == 0
    assert "three: the rates are without <lambda>" in capsys.readouterr().out


def test_a_stopped_run_needs_its_objects(toy, image_folder, tmp_path, capsys):
    with pytest.raises(CrashError):
        fit(config_with_objects(image_folder), tmp_path, progress=Crashing(1))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    with pytest.raises(MissingObjectError, match="call `fit` from the program that defines it"):
        fit(read_config(tmp_path), tmp_path)
    assert cli.main(["train", str(tmp_path / "config.json"), "--workdir", str(tmp_path)]) == 2
    assert "is an object of Python" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_importable_objects_are_found_by_their_names(toy, image_folder, tmp_path, monkeypatch, capsys):
    path = tmp_path / "own_optimizers.py"
    path.write_text(MODULE.format(scale=1.0))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names: Any = {"optimizer": "own_optimizers:make", "shape": "own_optimizers:half"}
    phase = Phase(name="one", train="head", epochs=2, learning_rate=0.1, **names)
    config, workdir = config_of(image_folder, phase), tmp_path / "run"
    with pytest.raises(CrashError):
        fit(config, workdir, progress=Crashing(2))
    sys.modules.pop("own_optimizers")
    options = [f"--schedule.phases.0.{name}={value}" for name, value in names.items()]
    assert cli.main(["plan", str(workdir / "config.json"), *options]) == 0
    path.write_text(MODULE.format(scale=2.0))
    sys.modules.pop("own_optimizers")
    with pytest.raises(MissingObjectError, match="own_optimizers:make has changed since the run started"):
        fit(load_config(str(workdir / "config.json")), workdir)
    path.write_text(MODULE.format(scale=1.0))
    sys.modules.pop("own_optimizers")
    assert cli.main(["train", str(workdir / "config.json"), "--workdir", str(workdir)]) == 0, (
        capsys.readouterr()
    )
    sys.modules.pop("own_optimizers")


def test_an_object_gives_the_same_run_as_its_name(toy, image_folder, tmp_path):
    named = Phase(name="one", train="top(2)", epochs=2, learning_rate=0.01, layer_decay=0.5)
    given = dataclasses.replace(named, optimizer=optax.adamw(1.0, weight_decay=0.0))
    for name, phase in (("named", named), ("given", given)):
        fit(config_of(image_folder, phase), tmp_path / name)
    for name in ("model/weights.safetensors", "predictions.csv"):
        assert (tmp_path / "named" / name).read_bytes() == (tmp_path / "given" / name).read_bytes()


def test_a_function_of_the_step_sets_the_rates(toy, image_folder, tmp_path, logged):
    phase = Phase(name="one", train="head", epochs=2, shape=lambda step: 0.1 * math.cos(step / 10))
    fit(config_of(image_folder, phase), tmp_path)
    rates = [line["rates"]["head"] for line in logged(tmp_path, "train")]
    steps = [0.1 * math.cos(step / 10) for step in range(6)]
    assert rates == pytest.approx([sum(steps[:3]) / 3, sum(steps[3:]) / 3], rel=1e-6)
