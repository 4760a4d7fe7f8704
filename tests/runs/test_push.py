import json
from pathlib import Path

import numpy as np
import pytest

from transfer_jax import Phase, Schedule, TrainConfig, cli, fit
from transfer_jax.data import BadImageError
from transfer_jax.freezing.recipes import lora
from transfer_jax.report.predictions import read_predictions
from transfer_jax.runs.push import write_folder
from transfer_jax.runs.trained_model import from_pretrained
from transfer_jax.weights.readers import CheckpointError

yaml = pytest.importorskip("yaml")

ADDRESS = "hf://ann/photos"


@pytest.fixture(scope="module")
def run(toy, image_folder, tmp_path_factory) -> Path:
    """A finished run of the toy network."""
    phases = (
        Phase(name="head", train="head", epochs=2, learning_rate=0.01),
        Phase(name="top | two", train="top(1)", epochs=1, learning_rate=1e-3),
    )
    config = TrainConfig(
        images=str(image_folder),
        model=toy,
        weights="none",
        schedule=Schedule(phases),
        batch_size=12,
        threads=1,
        test_fraction=0.2,
    )
    workdir = tmp_path_factory.mktemp("runs") / "photos"
    command = ("transfer-jax", "train", "--images", str(image_folder), "--model", "toy")
    fit(config, workdir, command=command)
    return workdir


@pytest.fixture(scope="module")
def pushed(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pushed") / "photos"
    write_folder(run, folder, place=ADDRESS)
    return folder


def test_a_folder_is_read_back_bit_for_bit(run, pushed, image_folder):
    assert {path.name for path in pushed.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    before, after = from_pretrained(run), from_pretrained(pushed)
    assert after.saved == before.saved
    weights = (run / "model" / "weights.safetensors").read_bytes()
    assert (pushed / "model.safetensors").read_bytes() == weights
    files = sorted((image_folder / "red").iterdir())[:5]
    assert np.array_equal(after.predict(files), before.predict(files))
    assert after.answers(files) == before.answers(files)


def test_images_of_any_kind_are_predicted(run, image_folder, toy_images):
    model = from_pretrained(run)
    files = sorted((image_folder / "red").iterdir())[:3]
    expected = model.predict(files, batch_size=2)
    np.testing.assert_allclose(model.predict([file.read_bytes() for file in files]), expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict(str(files[0])), expected[:1], rtol=1e-5)
    np.testing.assert_allclose(model.predict(toy_images.image(int(files[0].stem))), expected[:1], rtol=1e-5)
    for bad in (b"x", np.zeros((4, 4, 7), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(BadImageError, match="image 1: "):
            model.predict([files[0], bad])
    with pytest.raises(ValueError, match="no image is given"):
        model.predict([])


def test_the_card_describes_the_run(run, pushed):
    text = (pushed / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    data = yaml.safe_load(front)
    predictions = read_predictions(run / "test_predictions.csv")
    accuracy = float((predictions.values.argmax(-1) == predictions.labels).mean())
    (index,) = data["model-index"]
    (result,) = index["results"]
    assert (data["library_name"], data["pipeline_tag"]) == ("transfer_jax", "image-classification")
    assert result["dataset"]["split"] == "test"
    assert {each["type"]: each["value"] for each in result["metrics"]}["accuracy"] == pytest.approx(
        accuracy, abs=1e-5
    )
    lines = body.splitlines()
    count = len(predictions.labels)
    about = f"The scores are about {count} test images. The model was trained on none of them."
    assert any(line.startswith(about) for line in lines)
    assert any(line.startswith(f"| accuracy | {accuracy:.1%} | ") and " to " in line for line in lines)
    assert "| head | `head` | `stem` to `top` (4) |" in body
    assert r"| top \| two | `top`, `head` | `stem`, `blocks.1`, `blocks.11` |" in body
    assert "Hashes before and after each phase show that no frozen parameter" in body
    assert f'tj.from_pretrained("{ADDRESS}")' in body
    assert "transfer-jax train --images images0 --model toy" in body
    assert str(run.parent) not in text
    assert "/tmp" not in text


def test_a_licence_may_be_named(run, tmp_path):
    write_folder(run, tmp_path / "a", licence="MIT")
    assert "\nlicense: mit\n" in (tmp_path / "a" / "README.md").read_text()
    write_folder(run / "model", tmp_path / "b", licence="My Own")
    assert "\nlicense: other\nlicense_name: my-own\n" in (tmp_path / "b" / "README.md").read_text()
    assert "This folder has no scores" in (tmp_path / "b" / "README.md").read_text()


def test_damage_is_noticed(pushed, tmp_path):
    for path in pushed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"does not match the checksum in config\.json"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"library_name": "transfer_jax", "model": "toy"}))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged \(KeyError"):
        from_pretrained(tmp_path)


def test_the_commands_read_a_folder(run, pushed, image_folder, tmp_path, capsys):
    out = tmp_path / "predictions.json"
    assert cli.main(["predict", str(pushed), str(image_folder / "red"), "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())) == 16
    assert cli.main(["push", str(run), "--folder", str(tmp_path / "folder")]) in (0, None)
    assert (tmp_path / "folder" / "README.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "invalid repository 'photos'; the form is OWNER/NAME"),
        ([], "name a repository, as `transfer-jax push RUN OWNER/NAME`"),
        (["ann/photos", "--adapters-only"], "trained more than adapters and a head"),
        (["--folder", "RUN"], "is the folder of a run or of its model; choose another folder"),
    ],
)
def test_errors(run, capsys, arguments, message):
    words = [str(run) if word == "RUN" else word for word in arguments]
    assert cli.main(["push", str(run), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("place", ["hf://photos", "hf://a/b/c", "hf://../b"])
def test_malformed_addresses(place):
    with pytest.raises(ValueError, match="invalid address"):
        from_pretrained(place)


def test_other_folders_have_no_model(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
    with pytest.raises(FileNotFoundError, match="no trained model"):
        from_pretrained(tmp_path)


@pytest.mark.extended
def test_adapters_alone_are_read_back_bit_for_bit(image_folder, tmp_path):
    config = TrainConfig(
        images=str(image_folder),
        model="vit_tiny_patch16_224",
        weights="none",
        image_size=32,
        schedule=Schedule(lora(rank=1, epochs=1).phases[-1:]),
        batch_size=12,
        threads=1,
    )
    fit(config, tmp_path / "run")
    write_folder(tmp_path / "run", tmp_path / "adapters", adapters_only=True)
    write_folder(tmp_path / "run", tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("adapters", "whole")]
    assert sizes[0] < sizes[1] / 200
    files = sorted((image_folder / "red").iterdir())[:3]
    expected = from_pretrained(tmp_path / "run").predict(files)
    for name in ("adapters", "whole"):
        assert np.array_equal(from_pretrained(tmp_path / name).predict(files), expected)
