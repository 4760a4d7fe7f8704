"""Runs that train adapters: what their workdirs keep, and what resumed runs end with."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.adapters import load_adapters
from transfer_jax.data import from_folder
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import create_model
from transfer_jax.report.progress import Silent
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.weights.saved_model import SavedModel

VIT = "vit_nano_patch8_32"
PHASES = (
    Phase(name="head", train="head", epochs=1, learning_rate=0.01, keep_epoch="last"),
    Phase(
        name="adapters",
        train="head",
        epochs=2,
        learning_rate=0.01,
        adapter="lora(match('blocks.2.*qkv/kernel'), rank=2) + prompts(blocks('blocks.2'), tokens=2)",
        keep_epoch="last",
        cache="require",
    ),
    Phase(name="last", train="head", epochs=1, learning_rate=1e-3, keep_epoch="last", cache="require"),
)


class CrashError(Exception):
    pass


class Crashing(Silent):
    """Raises an error after a number of calls of `advance`, like a crash."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, images: int, **values: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise CrashError


def config_of(folder, phases=PHASES) -> TrainConfig:
    return TrainConfig(
        model=VIT, weights="none", images=str(folder), schedule=Schedule(phases), batch_size=12, threads=1
    )


@pytest.fixture(scope="module")
def workdir(image_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    fit(config_of(image_folder), folder)
    return folder


def test_the_workdir_has_adapters_and_head_only(workdir, image_folder):
    saved, model = SavedModel.load(workdir, merged=False)
    assert [each.name for each in saved.adapters] == ["lora", "prompts"]
    assert saved.base is not None
    assert saved.base.weights == "none"
    assert (workdir / "model/weights.safetensors").stat().st_size < 4000
    certificates = [json.loads(path.read_text()) for path in sorted((workdir / "certificates").iterdir())]
    boundaries = [each["spans"][0]["boundary"] for each in certificates]
    assert boundaries == ["pre_logits", "blocks.1", "pre_logits"]
    assert "backbone/blocks.2/attn/qkv/kernel" in certificates[1]["frozen"]
    assert "backbone/blocks.2/attn/qkv/adapters/lora/a" in certificates[2]["frozen"]
    other = create_model(VIT, 3)
    load_adapters(other, workdir)
    arrays = split(model)[1]
    for path, array in split(other)[1].items():
        if path.startswith("backbone/"):
            np.testing.assert_array_equal(array, arrays[path], err_msg=path)
    rows = [*csv.DictReader((workdir / "predictions.csv").read_text().splitlines())]
    dataset = from_folder(image_folder)
    found = predict_dataset(workdir, dataset)
    at = {str(name): index for index, name in enumerate(dataset.names)}
    for row in rows:
        expected = [float(row[f"p({name})"]) for name in dataset.class_names]
        np.testing.assert_allclose(found[at[row["image"]]], expected, atol=1e-4)


@pytest.mark.extended
def test_a_run_that_crashes_repeatedly_ends_the_same(workdir, image_folder, tmp_path):
    config, crashes = config_of(image_folder), 0
    while True:
        seconds = (0, 1000)[crashes % 2]
        try:
            fit(dataclasses.replace(config, checkpoint_seconds=seconds), tmp_path, progress=Crashing(7))
            break
        except CrashError:
            crashes += 1
            assert crashes < 20
    assert crashes >= 2
    for name in ("model/weights.safetensors", "model/model.json", "predictions.csv"):
        assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes(), name


@pytest.mark.extended
def test_a_run_that_trains_more_saves_the_whole_network(image_folder, tmp_path):
    whole = dataclasses.replace(PHASES[2], train="top(1)", cache="auto")
    fit(config_of(image_folder, (*PHASES[:2], whole)), tmp_path)
    saved, model = SavedModel.load(tmp_path)
    assert saved.base is None
    assert SavedModel.describe(tmp_path).base is None
    assert [each.name for each in saved.adapters] == ["prompts"]
    assert {*split(create_model(VIT, 3))[1]} < {*split(model)[1]}
