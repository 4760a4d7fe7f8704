import json
import re
import shutil

import pytest

from transfer_jax.cli import main
from transfer_jax.data import load_dataset
from transfer_jax.diagnostics import DIAGNOSTIC_NAMES, Diagnostics, SampleSizes, diagnose
from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.runs.workdir import read_config
from transfer_jax.storage.workdir_files import DIAGNOSTICS

SMALL = SampleSizes(points=3, maps=2)


@pytest.fixture
def copy(transformer, tmp_path):
    return copied(transformer, tmp_path)


def copied(workdir, tmp_path):
    left_out = shutil.ignore_patterns("features", "checkpoints")
    return shutil.copytree(workdir, tmp_path / "copy", ignore=left_out)


def test_all_diagnostics(workdir, tmp_path):
    copy = copied(workdir, tmp_path)
    found = diagnose(copy, sizes=SMALL)
    assert found.omitted == {}
    assert found.start == ("random" if read_config(copy).weights == "none" else "pretrained")
    written = json.loads((copy / DIAGNOSTICS).read_text())
    assert set(written) == {*DIAGNOSTIC_NAMES, "start", "omitted", "predictions"}
    assert Diagnostics.read(copy) == found
    assert {*written["distance"]} - {"head"} <= {*written["cka"]}
    assert written["train"]["images"] == 36
    assert sum(group["images"] for group in written["groups"].values()) == 12
    right = sum(group["images"] * group["accuracy"] for group in written["groups"].values())
    scores = [line for line in read_metrics(copy / "metrics.jsonl") if line["kind"] == "evaluation"][-1]
    assert right / 12 == pytest.approx(scores["accuracy"])
    assert [place["alpha"] for place in written["interpolation"]] == [0, 0.5, 1]
    assert written["interpolation"][-1]["accuracy"] == scores["accuracy"]
    assert len(written["maps"]) == 2


def test_existing_diagnostics_are_not_computed_again(copy, monkeypatch):
    first = diagnose(copy, only=["calibration", "distance"])
    assert (first.groups, first.cka) == (None, None)
    written = json.loads((copy / DIAGNOSTICS).read_text())
    written["distance"] = {"marked": 1.0}
    (copy / DIAGNOSTICS).write_text(json.dumps(written))
    second = diagnose(copy, sizes=SMALL)
    assert second.distance == {"marked": 1.0}
    assert second.cka is not None
    third = diagnose(copy, only=["distance"])
    assert third.distance == first.distance
    assert third.cka == second.cka


def test_diagnostics_of_an_earlier_training_are_dropped(copy):
    first = diagnose(copy, only=["calibration"])
    rows = (copy / "predictions.csv").read_text().splitlines()
    (copy / "predictions.csv").write_text("\n".join(rows[:-1]) + "\n")
    second = diagnose(copy, only=["calibration"])
    assert second.predictions != first.predictions
    assert second.calibration != first.calibration


def test_calibration_needs_neither_images_nor_model(copy):
    shutil.rmtree(copy / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "images": "nowhere"}))
    assert diagnose(copy, only=["calibration"]).calibration is not None


def test_images_without_groups(copy, image_folder):
    dataset = load_dataset(read_config(copy).images)
    plain = load_dataset(f"csv:{_without_groups(image_folder)}")
    assert list(plain.names) == list(dataset.names)
    with pytest.raises(ValueError, match="the images have no groups"):
        diagnose(copy, only=["groups"], dataset=plain)
    assert not (copy / DIAGNOSTICS).exists()
    found = diagnose(copy, dataset=plain, sizes=SMALL)
    assert found.groups is None
    assert found.omitted["groups"].startswith("the images have no groups")


def _without_groups(image_folder):
    lines = (image_folder.parent / "table.csv").read_text().splitlines()
    path = image_folder.parent / "plain.csv"
    path.write_text("\n".join(line.rpartition(",")[0] for line in lines))
    return path


def test_unknown_names_are_errors(tmp_path):
    with pytest.raises(ValueError, match="unknown diagnostic 'colour'; the diagnostics are calibration, "):
        diagnose(tmp_path, only=["colour"])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("name", "value"), [("images", 0), ("probe", 3), ("points", 1), ("maps", 0)])
def test_sizes_that_are_too_small(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be at least {value + 1}, got {value}"):
        SampleSizes(**{name: value})


def test_a_damaged_file_is_named(copy):
    (copy / DIAGNOSTICS).write_text("{")
    with pytest.raises(ValueError, match=rf"{DIAGNOSTICS} is damaged"):
        diagnose(copy)


def test_the_command(copy, capsys):
    assert main(["diagnose", str(copy), "--only", "cka", "calibration", "groups", "--probe", "12"]) == 0
    output = capsys.readouterr().out
    assert re.search("compared with their (random|pretrained) start", output)
    assert "Expected calibration error" in output
    assert "Validation images by group" in output
    assert set(json.loads((copy / DIAGNOSTICS).read_text())) == {
        "start",
        "omitted",
        "predictions",
        "cka",
        "calibration",
        "groups",
    }
    assert main(["diagnose", str(copy), "--maps", "1", "--points", "2"]) == 0
    output = capsys.readouterr().out
    assert "Between the weights at the start (0) and at the end (1)" in output
    assert "1 saliency map by " in output


def test_similarity_by_step_is_in_the_metrics(convolutional):
    lines = [line for line in read_metrics(convolutional / "metrics.jsonl") if line["kind"] == "depth"]
    assert [line["step"] for line in lines] == [3, 6, 9]
    for line in lines:
        assert set(line) >= {"grad_norm", "rgn", "snr", "update", "distance", "cka"}
        assert set(line["grad_norm"]) == set(line["distance"]) == {"blocks.7", "top", "head"}
        assert set(line["cka"]) == {"blocks.7", "top", "pre_logits"}
        assert all(0 < value < 1.01 for value in line["cka"].values())
