import dataclasses
import json
import re

import pytest

from transfer_jax.models import Preprocessing
from transfer_jax.weights.preprocessing_files import read_preprocessing

DEFAULT = Preprocessing(
    image_size=24, crop_fraction=0.9, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)
)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
HF = {"image_mean": MEAN, "image_std": STD}


def read(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_preprocessing(folder, DEFAULT)


def changed(found: Preprocessing) -> dict:
    """The fields that differ from the default."""
    before = dataclasses.asdict(DEFAULT)
    return {name: value for name, value in dataclasses.asdict(found).items() if value != before[name]}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pretrained_cfg": {"mean": MEAN, "std": STD}}, IMAGENET),
        (
            {"pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1.0}},
            {"image_size": 32, "crop_fraction": 1.0},
        ),
        ({"pretrained_cfg": {"interpolation": "bilinear"}}, {"interpolation": "bilinear"}),
        (
            {"architecture": "x", "mean": MEAN, "std": STD, "input_size": [3, 32, 32]},
            {**IMAGENET, "image_size": 32},
        ),
        (
            {"pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}},
            {"mean": (0, 0, 0), "std": (255, 255, 255)},
        ),
        ({"pretrained_cfg": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}}, IMAGENET),
        ({"model": "resnet18", "weights": "auto", "image_size": 64}, {}),  # the config of a run
        ({"architectures": ["ViTModel"], "hidden_size": 192}, {}),
    ],
)
def test_timm(tmp_path, config, expected):
    found, notes = read(tmp_path, config=config)
    assert changed(found) == expected
    assert bool(notes) == bool(expected)
    assert all("config.json" in note for note in notes)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (HF, IMAGENET),
        ({"size": 32}, {"image_size": 32, "crop_fraction": 1.0}),
        ({"size": {"height": 32, "width": 32}}, {"image_size": 32, "crop_fraction": 1.0}),
        (
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
            {"image_size": 32, "crop_fraction": 0.8},
        ),
        ({"size": 40, "crop_size": 32, "do_center_crop": True}, {"image_size": 32, "crop_fraction": 0.8}),
        ({"size": 40, "crop_size": 32, "do_center_crop": False}, {"image_size": 40, "crop_fraction": 1.0}),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.875}, {"image_size": 32, "crop_fraction": 0.875}),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, {"image_size": 384, "crop_fraction": 1.0}),
        ({"resample": 2}, {"interpolation": "bilinear"}),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, {"mean": (127.5,) * 3, "std": (127.5,) * 3}),
        ({**HF, "do_normalize": False}, {"mean": (0.0,) * 3, "std": (255.0,) * 3}),
        ({"do_normalize": False, "do_rescale": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        (
            {
                "image_mean": [0.0] * 3,
                "image_std": [1.0] * 3,
                "rescale_factor": 1 / 127.5,
                "rescale_offset": True,
            },
            {"mean": (127.5,) * 3, "std": (127.5,) * 3},
        ),
        (
            {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "include_top": True},
            {"mean": (127.5,) * 3, "std": (63.75,) * 3},
        ),
    ],
)
def test_transformers(tmp_path, config, expected):
    found, notes = read(tmp_path, preprocessor_config=config)
    assert changed(found) == expected
    assert "preprocessor_config.json" in notes[0]


def test_pretrained_cfg_comes_before_the_preprocessor_and_the_difference_is_stated(tmp_path):
    timm = {"pretrained_cfg": {"mean": MEAN, "std": STD, "input_size": [3, 32, 32]}}
    found, notes = read(tmp_path, config=timm, preprocessor_config={**HF, "size": 48, "resample": 2})
    assert changed(found) == {**IMAGENET, "image_size": 32, "crop_fraction": 1.0, "interpolation": "bilinear"}
    assert any("has the image size 48" in note and "has 32, which is used" in note for note in notes)
    assert not any("has the mean" in note for note in notes)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("{", "config.json is not used: "),
        ({"pretrained_cfg": {"mean": [0.5], "std": [0.5]}}, r"mean \[0\.5\] .* three numbers"),
        ({"pretrained_cfg": {"mean": MEAN, "std": [0, 1, 1]}}, "must have three numbers"),
        ({"pretrained_cfg": {"mean": MEAN}}, "std None are not used"),
        ({"pretrained_cfg": {"input_size": [3, 32, 64]}}, r"image size \[3, 32, 64\] is not used"),
        ({"pretrained_cfg": {"crop_pct": 1.2}}, r"crop_pct 1\.2 is not used"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "interpolation 'lanczos' is not supported"),
        ({"pretrained_cfg": {"crop_mode": "squash"}}, "crop_mode 'squash' is not supported"),
    ],
)
def test_what_is_not_used_is_stated(tmp_path, config, problem):
    found, notes = read(tmp_path, config=config)
    assert found == DEFAULT
    (note,) = notes
    assert note.startswith(str(tmp_path / "config.json"))
    assert re.search(problem, note)


def test_a_saved_model_has_its_own(tmp_path):
    own = Preprocessing(image_size=40, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channel_order="bgr")
    (tmp_path / "model").mkdir()
    described = {"model": "x", "preprocessing": dataclasses.asdict(own)}
    (tmp_path / "model" / "model.json").write_text(json.dumps(described))
    (tmp_path / "model" / "weights.safetensors").touch()
    for path in (tmp_path, tmp_path / "model", tmp_path / "model" / "weights.safetensors"):
        found, (note,) = read_preprocessing(path, DEFAULT)
        assert found == own
        assert "model.json" in note


def test_a_folder_without_descriptions(tmp_path):
    assert read(tmp_path) == (DEFAULT, ())
