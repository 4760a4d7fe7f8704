"""What a newcomer's command becomes; the images are 48 of three colours."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.data import BadImageError, load_dataset
from transfer_jax.data.tfds import DATA_DIR_VARIABLE
from transfer_jax.freezing import five_steps
from transfer_jax.runs.resolve import resolve
from transfer_jax.report.progress import Silent
from transfer_jax.runs.workdir import claim
from transfer_jax.training.run import split_images


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def config(image_folder: Path) -> TrainConfig:
    return TrainConfig(images=str(image_folder), model="efficientnet_lite_tiny", weights="none")


def test_a_config_that_says_all_is_left_as_it_is(config, tmp_path, data_dir):
    settled = resolve(config, None, tmp_path / "run", Silent())
    assert (settled.config, settled.choices, settled.findings) == (config, (), None)
    assert settled.notes == {}
    assert not data_dir.exists()
    looked = resolve(config, None, tmp_path / "run", Silent(), look=True)
    assert looked.config == config
    assert {*looked.notes} == {"findings.json"}


def test_what_is_not_given_is_chosen(config, tmp_path):
    settled = resolve(config, ["images", "model", "weights"], tmp_path / "run", Silent(), look=True)
    schedule = settled.config.schedule
    assert schedule == five_steps("top(2)", epochs=14, views=4)
    assert (settled.config.image_size, settled.config.batch_size) == (32, 8)
    choices = {
        choice.value if choice.field == "cache" else choice.field: choice.why for choice in settled.choices
    }
    assert choices["on in phase head"].endswith("see 48 images instead of 2,172")
    assert "at blocks." in choices["on in phase top"]
    assert [choice["field"] for choice in json.loads(settled.notes["choices.json"])][-2:] == [
        "cache",
        "cache",
    ]
    assert not (tmp_path / "run").exists()


def test_why_a_phase_has_no_cache(config, tmp_path):
    config = dataclasses.replace(config, schedule=five_steps("all_()"))
    settled = resolve(config, ["schedule"], tmp_path / "run", Silent())
    caches = [(choice.value, choice.why) for choice in settled.choices if choice.field == "cache"]
    assert caches[0][0] == "on in phase head"
    assert caches[1:] == [("off in phase top", "its lowest block trains")]


def test_a_run_that_is_begun_keeps_what_was_chosen(config, tmp_path):
    workdir = tmp_path / "run"
    begun = dataclasses.replace(config, batch_size=7, seed=3, schedule=five_steps("top(3)"))
    claim(begun, workdir)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    settled = resolve(config, ["images", "threads"], workdir, Silent(), look=True)
    assert settled.config == begun
    assert (settled.choices, settled.findings) == ((), None)
    other = resolve(dataclasses.replace(config, seed=4), ["seed"], workdir, Silent())
    assert other.config == dataclasses.replace(begun, seed=4)
    assert resolve(config, None, workdir, Silent()).config == config


@pytest.mark.parametrize("choice", ["error", "skip"])
def test_bad_images_are_found_before_anything_else(config, image_folder, tmp_path, choice):
    folder = tmp_path / "spoilt"
    shutil.copytree(image_folder, folder)
    for name in ("00", "03"):
        (folder / "red" / f"{name}.png").write_bytes(b"")
    config = dataclasses.replace(config, images=str(folder), on_bad_image=choice)
    if choice == "error":
        with pytest.raises(
            BadImageError, match=r"^red/00\.png: the file is empty and 1 more; --on-bad-image skip"
        ):
            resolve(config, None, tmp_path / "run", Silent(), look=True)
        return
    settled = resolve(config, None, tmp_path / "run", Silent(), look=True)
    assert settled.findings is not None
    assert [finding.figures["images"] for finding in settled.findings if finding.kind == "bad"] == [2]


@pytest.mark.parametrize("changes", [{"seed": 5}, {"split_seed": 5}, {"images_per_class": 6}])
def test_leaks_are_those_of_the_split_that_the_run_takes(config, image_folder, tmp_path, changes):
    folder = tmp_path / "twice"
    shutil.copytree(image_folder, folder)
    for original in sorted((folder / "red").iterdir())[:8]:
        shutil.copy(original, original.with_name(f"again-{original.name}"))
    config = dataclasses.replace(config, images=str(folder), **changes)
    settled = resolve(config, None, tmp_path / "run", Silent(), look=True)
    (leak,) = [finding for finding in settled.findings or () if finding.kind == "leak"]
    train, held_out = split_images(load_dataset(config.images), config)
    trained = {Path(name).name.removeprefix("again-") for name in train.names if name.startswith("red")}
    tested = [Path(name).name.removeprefix("again-") for name in held_out.names if name.startswith("red")]
    assert leak.figures["images"] == sum(name in trained for name in tested)


def test_mistakes_are_found_before_images_are_looked_at(config, tmp_path, data_dir):
    with pytest.raises(ValueError, match="unknown model"):
        resolve(dataclasses.replace(config, model="alexnet9"), [], tmp_path / "run", Silent(), look=True)
    with pytest.raises(ValueError, match="lies inside the folder of the images"):
        resolve(config, [], Path(config.images) / "run", Silent(), look=True)
    assert not data_dir.exists()
