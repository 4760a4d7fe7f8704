import dataclasses
import json

import numpy as np
import pytest

from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.tasks import MultiLabel, SingleLabel
from transfer_jax.tasks.temperature import at_temperature
from transfer_jax.weights.readers import CheckpointError
from transfer_jax.weights.saved_model import SavedModel, model_checksum

TINY = "efficientnet_lite_tiny"
SAVED = SavedModel(
    model=TINY,
    task=SingleLabel(("ant", "bee", "fly")),
    preprocessing=Preprocessing(image_size=40, crop_fraction=0.5, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)),
    hidden=(6,),
)


def arrays_of(model) -> dict:
    _, params, stats = split(model)
    return {**params, **stats}


@pytest.fixture(scope="module")
def model():
    return create_model(TINY, 3, hidden=(6,), dropout=0.5, seed=3)


@pytest.mark.parametrize("inside", ["", "model"])
def test_round_trip(tmp_path, model, inside):
    SAVED.save(tmp_path / inside, arrays_of(model))
    saved, loaded = SavedModel.load(tmp_path)
    assert saved == SAVED
    model.eval()
    assert split(loaded)[0] == split(create_eval(SAVED))[0]
    for path, array in arrays_of(model).items():
        np.testing.assert_array_equal(arrays_of(loaded)[path], array, err_msg=path)


def test_a_calibrated_model_has_the_temperature_in_its_head(tmp_path, model):
    task = MultiLabel(("ant", "bee", "fly"), (0.3, 0.5, 0.9))
    saved = dataclasses.replace(SAVED, task=task, temperature=2.5)
    saved.save(tmp_path, arrays_of(model))
    assert SavedModel.describe(tmp_path) == saved
    known, scaled = SavedModel.load(tmp_path, calibrated=True)
    assert known == SavedModel.describe(tmp_path, calibrated=True) == saved.calibrated()
    assert known.temperature is None
    for path, array in arrays_of(model).items():
        expected = np.asarray(array) / (2.5 if path.startswith("head/classifier/") else 1)
        np.testing.assert_allclose(arrays_of(scaled)[path], expected, rtol=1e-6, err_msg=path)
    rows = np.random.default_rng(0).normal(size=(20, 3))
    before, after = task.predictions(rows), task.predictions(rows / 2.5)
    np.testing.assert_allclose(after, at_temperature(task, before, 2.5))
    assert known.task.answers(after) == task.answers(before)
    with pytest.raises(
        ValueError, match="the model has no temperature for calibrated probabilities: at least"
    ):
        dataclasses.replace(saved, temperature=None).calibrated()


def create_eval(saved: SavedModel):
    model = create_model(saved.model, len(saved.class_names), hidden=saved.hidden, dropout=0.0)
    model.eval()
    return model


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no trained model in .*there is no model\.json"):
        SavedModel.load(tmp_path)


def test_a_save_that_fails_leaves_the_earlier_model(tmp_path, model, monkeypatch):
    SAVED.save(tmp_path, arrays_of(model))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transfer_jax.weights.saved_model.save_file", full)
    with pytest.raises(OSError, match="No space left") as error:
        SAVED.save(tmp_path, arrays_of(model))
    assert error.value.filename == str(tmp_path / "weights.safetensors")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    SavedModel.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda arrays: arrays.pop("head/classifier/bias"), "head/classifier/bias"),
        (lambda arrays: arrays.update(extra=np.zeros(1)), "extra"),
        (lambda arrays: arrays.update({"head/classifier/bias": np.zeros(4)}), "head/classifier/bias"),
    ],
)
def test_arrays_that_do_not_fill_the_network_are_named(tmp_path, model, change, named):
    arrays = arrays_of(model)
    change(arrays)
    SAVED.save(tmp_path, arrays)
    with pytest.raises(CheckpointError, match=f"does not match the network {TINY}: {named}$"):
        SavedModel.load(tmp_path)


def test_the_description_is_readable(tmp_path, model):
    SAVED.save(tmp_path, arrays_of(model))
    described = json.loads((tmp_path / "model.json").read_text())
    assert len(described.pop("sha256")) == 64
    expected = {**dataclasses.asdict(SAVED), "task": SAVED.task.to_json()}
    assert described == json.loads(json.dumps(expected))


def test_a_byte_that_flipped_is_noticed(tmp_path, model):
    SAVED.save(tmp_path, arrays_of(model))
    path = tmp_path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged: it does not match"):
        SavedModel.load(tmp_path)


def test_a_model_of_the_first_versions_has_no_checksum(tmp_path, model):
    SAVED.save(tmp_path, arrays_of(model))
    described = json.loads((tmp_path / "model.json").read_text())
    del described["sha256"]
    (tmp_path / "model.json").write_text(json.dumps(described))
    assert SavedModel.load(tmp_path)[0] == SAVED


@pytest.mark.parametrize("content", ["", '{"model": "efficien', "[]", '{"model": "efficientnet_lite_tiny"}'])
def test_a_damaged_description_is_named(tmp_path, model, content):
    SAVED.save(tmp_path, arrays_of(model))
    (tmp_path / "model.json").write_text(content)
    for read in (SavedModel.load, SavedModel.describe):
        with pytest.raises(CheckpointError, match=r"model\.json is damaged \("):
            read(tmp_path)


def test_missing_arrays_are_named(tmp_path, model):
    SAVED.save(tmp_path, arrays_of(model))
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no trained model in .*there is no weights\.safetensors"):
        SavedModel.load(tmp_path)


def other_arrays(folder, model):
    SAVED.save(folder, {path: array + 1 for path, array in arrays_of(model).items()})


def other_preprocessing(folder, model):
    described = json.loads((folder / "model.json").read_text())
    described["preprocessing"]["crop_fraction"] = 1.0
    (folder / "model.json").write_text(json.dumps(described))


def other_classes(folder, model):
    dataclasses.replace(SAVED, task=SingleLabel(("ant", "wasp", "fly"))).save(folder, arrays_of(model))


@pytest.mark.parametrize("change", [other_arrays, other_preprocessing, other_classes])
def test_a_workdir_has_the_model_that_its_run_wrote(tmp_path, model, change):
    folder = tmp_path / "model"
    SAVED.save(folder, arrays_of(model))
    (tmp_path / "phases.json").write_text(json.dumps({"phases": [], "model": model_checksum(folder)}))
    assert SavedModel.load(tmp_path)[0] == SAVED
    change(folder, model)
    for read in (SavedModel.load, SavedModel.describe):
        with pytest.raises(
            CheckpointError, match=r"model is not the model that the run in .* wrote: model\.json"
        ):
            read(tmp_path)
        read(folder)
