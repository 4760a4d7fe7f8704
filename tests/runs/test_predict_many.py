import dataclasses
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.data import BadImageError, eval_transform, from_folder
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.runs.predict_many import TrainedModels
from transfer_jax.tasks import MultiLabel, SingleLabel
from transfer_jax.weights.saved_model import SavedModel

TINY = "vit_nano_patch8_32"
INPUT = Preprocessing(image_size=32, crop_fraction=1.0, mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Three models on one backbone: two tasks, and one with other preprocessing."""
    folder, (_, params, stats) = tmp_path_factory.mktemp("runs"), split(create_model(TINY, 3, seed=1))
    for index, (name, task, std) in enumerate(
        (
            ("species", SingleLabel(names=("ant", "bee", "fly")), 64.0),
            ("traits", MultiLabel(names=("big", "red", "old")), 64.0),
            ("other", SingleLabel(names=("ant", "bee", "fly")), 32.0),
        )
    ):
        saved = SavedModel(
            model=TINY, task=task, preprocessing=dataclasses.replace(INPUT, std=(std, std, std))
        )
        head = {path: jnp.asarray(x + 0.1 * index) for path, x in params.items() if path.startswith("head")}
        saved.save(folder / name / "model", {**params, **stats, **head})
    return [folder / name for name in ("species", "traits", "other")]


def test_predictions_are_those_of_each_model(places, image_folder):
    models, dataset = TrainedModels(places), from_folder(image_folder)
    found = models.predict(dataset)
    assert [*found] == ["species", "traits", "other"]
    assert [group.trunk.steps for group in models.groups] == [8, 7]
    assert models.groups[0].trunk.shared[-1] == "pre_logits"
    for place in places[1:]:
        np.testing.assert_allclose(found[place.name], predict_dataset(place, dataset), rtol=1e-4, atol=1e-6)


@pytest.mark.extended
def test_bad_images_have_no_predictions(places, image_folder, tmp_path):
    from transfer_jax.runs.predict import unlabelled

    files = [*sorted((image_folder / "red").iterdir())[:2], tmp_path / "bad.png"]
    files[-1].write_bytes(b"no image")
    bad, models = {}, TrainedModels({"a": places[0], "b": places[1]})
    found = models.predict(unlabelled(files, models.tasks["a"]), bad=bad)
    assert [*bad] == [2]
    for each in found.values():
        np.testing.assert_array_equal(np.isnan(each).all(1), [False, False, True])
    with pytest.raises(BadImageError):
        models.predict(unlabelled(files, models.tasks["a"]))


@pytest.mark.extended
def test_one_program_has_all_outputs(places, image_folder, tmp_path):
    pytest.importorskip("flatbuffers")
    models, dataset = TrainedModels(places[:2]), from_folder(image_folder)
    program = jax.export.deserialize(bytearray(models.export(tmp_path / "all.stablehlo").read_bytes()))
    pixels = np.stack([eval_transform(dataset.image(index), INPUT) for index in range(2)])
    found: Any = program.call(jnp.asarray(pixels, jnp.float32))
    expected = models.predict(dataset)
    for name, outputs in found.items():
        each = models.tasks[name].predictions(np.asarray(outputs))
        np.testing.assert_allclose(each, expected[name][:2], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="one program needs models with the same preprocessing"):
        TrainedModels(places).export(tmp_path / "no.stablehlo")


def test_names_are_different(places):
    with pytest.raises(ValueError, match="two models have the name 'species'; give a dictionary"):
        TrainedModels([places[0], places[0] / "model"])
    with pytest.raises(ValueError, match="no model is given"):
        TrainedModels([])
