import dataclasses
import json
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax import cli
from transfer_jax.data import BadImageError, eval_transform, from_folder
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.runs.predict_many import TrainedModels
from transfer_jax.tasks import MultiLabel, SingleLabel
from transfer_jax.weights.check_image import check_image
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


def run_program(file, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs of a program by name."""
    if file.suffix == ".stablehlo":
        pytest.importorskip("flatbuffers")
        program: Any = jax.export.deserialize(bytearray(file.read_bytes()))
        return {name: np.asarray(each) for name, each in program.call(jnp.asarray(images)).items()}
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: images}), strict=True))


@pytest.mark.extended
@pytest.mark.parametrize(
    ("suffix", "values", "output"),
    [("stablehlo", "float32", "logits"), ("onnx", "uint8", "predictions"), ("onnx", "normalized", "logits")],
)
def test_one_program_has_all_outputs(places, image_folder, tmp_path, suffix, values, output):
    pytest.importorskip("flatbuffers" if suffix == "stablehlo" else "onnx")
    models, dataset, out = TrainedModels(places[:2]), from_folder(image_folder), tmp_path / f"all.{suffix}"
    record = models.export(out, values=values, output=output)
    pixels = np.stack([eval_transform(dataset.image(index), INPUT) for index in range(2)])
    rounded = pixels.astype("uint8" if values == "uint8" else "float32")
    images = np.asarray(INPUT.normalize(jnp.asarray(rounded))) if values == "normalized" else rounded
    found = run_program(out, images)
    expected = models.predict(dataset)
    assert {*found} == {*expected} == {*record["tasks"]}
    for name, outputs in found.items():
        each = outputs if output == "predictions" else models.tasks[name].predictions(outputs)
        np.testing.assert_allclose(
            each, expected[name][:2], rtol=2e-3 if values == "uint8" else 1e-4, atol=1e-5
        )
    check = check_image(32).astype(images.dtype) if values != "normalized" else None
    if check is not None:
        for name, outputs in run_program(out, check).items():
            known = record["check"]
            limit = known["tolerance"][name]
            np.testing.assert_allclose(outputs[0], known["outputs"][name], atol=limit)
    if suffix == "stablehlo":
        assert json.loads((tmp_path / "all.stablehlo.json").read_text()) == json.loads(json.dumps(record))
        with pytest.raises(ValueError, match="one program needs models with the same preprocessing"):
            TrainedModels(places).export(tmp_path / "no.stablehlo")
        with pytest.raises(ValueError, match=r"must end in \.onnx or \.stablehlo, got .*all\.h5"):
            models.export(tmp_path / "all.h5")


@pytest.mark.extended
def test_commands_predict_and_export_several_runs(places, image_folder, tmp_path, capfd):
    pytest.importorskip("onnx")
    first, *others = map(str, places)
    out = tmp_path / "found.csv"
    assert cli.main(["predict", first, str(image_folder), "--out", str(out), "--also", *others]) == 0
    assert "species, traits compute their blocks up to pre_logits once" in " ".join(
        capfd.readouterr().err.split()
    )
    assert cli.main(["predict", first, str(image_folder), "--out", str(tmp_path / "one.csv")]) == 0
    assert (tmp_path / "found-species.csv").read_text().splitlines()[
        0
    ] == "image,predicted,p(ant),p(bee),p(fly),error"
    assert len((tmp_path / "found-traits.csv").read_text().splitlines()) == 49
    answers = [
        [line.split(",")[1] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("found-species.csv", "one.csv")
    ]
    assert answers[0] == answers[1]
    capfd.readouterr()
    assert cli.main(["predict", first, str(image_folder / "red"), "--also", *others]) == 0
    shown = capfd.readouterr().out.splitlines()
    (heading,) = [line for line in shown if "species" in line]
    assert heading.split() == ["image", "species", "traits", "other"]
    assert sum(".png" in line for line in shown) == 16
    program = tmp_path / "all.onnx"
    command = ["export", first, "--to", "onnx", "--out", str(program), "--output", "predictions"]
    assert cli.main([*command, "--also", others[0]]) == 0
    assert "Output 'traits': predictions of big, red, old" in capfd.readouterr().out
    assert program.stat().st_size > 1000
    for options, message in (
        (["--to", "timm", "--also", others[0]], "--also is for programs: --to onnx or --to stablehlo"),
        (["--to", "onnx", "--also", others[0], "--verify"], "--verify is for one run"),
    ):
        assert cli.main(["export", first, *options]) == 2
        assert message in " ".join(capfd.readouterr().err.split())
    assert cli.main(["predict", first, str(image_folder), "--views", "flip", "--also", others[0]]) == 2


def test_names_are_different(places):
    with pytest.raises(ValueError, match="two models have the name 'species'; give a dictionary"):
        TrainedModels([places[0], places[0] / "model"])
    with pytest.raises(ValueError, match="no model is given"):
        TrainedModels([])
