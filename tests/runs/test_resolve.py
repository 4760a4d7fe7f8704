"""Resolving configs. There are 48 images of three colors."""

import dataclasses
import importlib
import json
import shutil
from pathlib import Path

import pytest

from transfer_jax.cli import main
from transfer_jax.config import TrainConfig
from transfer_jax.data import BadImageError, load_dataset
from transfer_jax.data.tfds import DATA_DIR_VARIABLE
from transfer_jax.freezing import feature_extraction, five_steps
from transfer_jax.report.progress import Silent
from transfer_jax.runs import images
from transfer_jax.runs.images import split_images
from transfer_jax.runs.loop import Loop
from transfer_jax.runs.resolve import resolve, resumed_config
from transfer_jax.runs.workdir import claim


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def config(image_folder: Path) -> TrainConfig:
    return TrainConfig(images=str(image_folder), model="efficientnet_lite_tiny", weights="none")


def test_a_complete_config_is_not_changed(config, tmp_path, data_dir):
    resolved = resolve(config, workdir=tmp_path / "run")
    assert (resolved.config, resolved.defaults, resolved.findings) == (config, (), None)
    assert resolved.notes == {}
    assert not data_dir.exists()
    looked = resolve(config, workdir=tmp_path / "run", scan=True)
    assert looked.config == config
    assert {*looked.notes} == {"findings.json"}


def test_defaults_are_chosen_for_fields_that_are_not_given(config, tmp_path):
    given = ["images", "model", "weights"]
    resolved = resolve(config, given=given, workdir=tmp_path / "run", scan=True)
    assert resolved.config.schedule == feature_extraction()  # There are few validation images.
    assert (resolved.config.image_size, resolved.config.batch_size) == (32, 8)
    choices = {
        choice.value if choice.field == "cache" else choice.field: choice.why for choice in resolved.defaults
    }
    assert choices["on in phase head"].endswith("see 48 images instead of 2,172")
    assert json.loads(resolved.notes["choices.json"])[-1]["field"] == "cache"
    assert not (tmp_path / "run").exists()


def test_the_reason_why_a_phase_has_no_cache(config, tmp_path):
    config = dataclasses.replace(config, schedule=five_steps("all_()"))
    resolved = resolve(config, given=["schedule"], workdir=tmp_path / "run")
    caches = [(choice.value, choice.why) for choice in resolved.defaults if choice.field == "cache"]
    assert caches[0][0] == "on in phase head"
    assert caches[1:] == [("off in phase top", "its lowest block trains")]


def test_a_started_run_keeps_its_config(config, tmp_path):
    workdir = tmp_path / "run"
    started = dataclasses.replace(config, batch_size=7, seed=3, schedule=five_steps("top(3)"))
    claim(started, workdir)
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    resolved = resolve(config, given=["images", "threads"], workdir=workdir, scan=True)
    assert resolved.config == started
    assert (resolved.defaults, resolved.findings) == ((), None)
    other = resolve(dataclasses.replace(config, seed=4), given=["seed"], workdir=workdir)
    assert other.config == dataclasses.replace(started, seed=4)
    assert resolve(config, workdir=workdir).config == config
    assert resumed_config(config, ["images"], workdir) == started
    assert resumed_config(config, ["images"], tmp_path / "other") is None


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
            resolve(config, workdir=tmp_path / "run", scan=True)
        return
    resolved = resolve(config, workdir=tmp_path / "run", scan=True)
    assert resolved.findings is not None
    assert [finding.figures["images"] for finding in resolved.findings if finding.kind == "bad"] == [2]


@pytest.mark.parametrize("changes", [{"seed": 5}, {"split_seed": 5}, {"images_per_class": 6}])
def test_leaks_are_those_of_the_split_that_the_run_takes(config, image_folder, tmp_path, changes):
    folder = tmp_path / "twice"
    shutil.copytree(image_folder, folder)
    for original in sorted((folder / "red").iterdir())[:8]:
        shutil.copy(original, original.with_name(f"again-{original.name}"))
    config = dataclasses.replace(config, images=str(folder), **changes)
    resolved = resolve(config, workdir=tmp_path / "run", scan=True)
    (leak,) = [finding for finding in resolved.findings or () if finding.kind == "leak"]
    train, held_out, _ = split_images(load_dataset(config.images), config)
    trained = {Path(name).name.removeprefix("again-") for name in train.names if name.startswith("red")}
    tested = [Path(name).name.removeprefix("again-") for name in held_out.names if name.startswith("red")]
    assert leak.figures["images"] == sum(name in trained for name in tested)


def test_first_look_at_many_images_reads_a_sample(config, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "LARGE", 40)
    monkeypatch.setattr(images, "LOOKED_AT", 12)
    lines: list[str] = []

    class Log(Silent):
        def start(self, task: str, total: int, *, done: int = 0) -> None:
            lines.append(f"{task} {total}")

        def log(self, message: str) -> None:
            lines.append(message)

    resolved = resolve(config, given=["images"], workdir=tmp_path / "run", scan=True, progress=Log())
    assert "first look at 12 of 48 images; `transfer-jax check` reads all of them" in lines
    assert "scanning images 12" in lines
    assert resolved.findings is not None
    assert not resolved.config.keep_together
    lines.clear()
    skipping = dataclasses.replace(config, on_bad_image="skip")
    resolve(skipping, given=["images", "on_bad_image"], scan=True, progress=Log())
    assert "scanning images 48" in lines  # All bad images must be known.


def test_errors_in_the_config_are_found_before_images_are_read(config, tmp_path, data_dir):
    with pytest.raises(ValueError, match="unknown model"):
        resolve(dataclasses.replace(config, model="alexnet9"), given=[], scan=True)
    with pytest.raises(ValueError, match="is inside the folder of the images"):
        resolve(config, given=[], workdir=Path(config.images) / "run", scan=True)
    assert not data_dir.exists()


def counted(monkeypatch: pytest.MonkeyPatch, calls: dict[str, int], module: str, name: str) -> None:
    """Counts the calls of a function, under the name of the module that uses it."""
    function = getattr(importlib.import_module(module), name)

    def count(*args: object, **options: object) -> object:
        if name != "create_model" or options.get("abstract_backbone"):
            calls[name] = calls.get(name, 0) + 1
        return function(*args, **options)

    monkeypatch.setattr(f"{module}.{name}", count)


@pytest.mark.parametrize("given", [(), ("--schedule.phases.0.epochs", "1")])
def test_a_first_train_resolves_once(config, tmp_path, monkeypatch, given):
    calls: dict[str, int] = {}
    for module, name in (
        ("transfer_jax.runs.config_images", "load_dataset"),
        ("transfer_jax.runs.resolve", "check_config"),
        ("transfer_jax.runs.resolve", "check_schedule"),
        ("transfer_jax.planning.network", "check_schedule"),
        ("transfer_jax.planning.network", "create_model"),
        ("transfer_jax.planning.network", "find_spec"),
        ("transfer_jax.planning.network", "FeatureShapes"),
        ("transfer_jax.training.run", "FeatureShapes"),
        ("transfer_jax.runs.load_network", "create_model"),
    ):
        counted(monkeypatch, calls, module, name)

    def train(self: Loop) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "train", train)
    command = ["train", "--images", config.images, "--model", config.model, "--weights", "none", *given]
    assert main([*command, "--workdir", str(tmp_path / "run")]) == 130
    assert calls == {
        "load_dataset": 1,
        "check_config": 1,
        "check_schedule": 1,
        "create_model": 1,  # The second model has arrays.
        "FeatureShapes": 1,
    }


@pytest.mark.parametrize(("limit", "printed"), [(1, 0), (12, 0), (1000, 1)])
def test_a_limit_above_the_number_of_images_is_printed(config, limit, printed):
    lines = []
    progress = type("Log", (Silent,), {"log": lambda self, text: lines.append(text)})()
    resolve(dataclasses.replace(config, images_per_class=limit), progress=progress)
    text = "images_per_class 1,000: 3 of 3 classes have fewer training images and keep all of them"
    assert lines.count(text) == len(lines) == printed
