"""The start of a run: which changes of weights, preprocessing and images are noticed."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset, load_dataset
from transfer_jax.data.contents import ChosenNames, NumberedNames
from transfer_jax.data.dataset import Content
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs import run_start
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.runs.run_start import PartStart, RunStart, check_images, read_start
from transfer_jax.runs.trained_images import count_trained
from transfer_jax.runs.workdir import claim
from transfer_jax.weights import find_spec
from transfer_jax.weights.key_mapping import to_library
from transfer_jax.weights.specs import WeightsSpec

TINY = "efficientnet_lite_tiny"
WORKDIR = Path("run")


def save_weights(path: Path, *, seed: int = 1, classes: int = 5, changed: str = "") -> Path:
    """Writes weights of the tiny network; the first value of an array may be changed."""
    _, params, stats = split(create_model(TINY, classes, seed=seed))
    arrays = {key: np.array(value) for key, value in to_library(TINY, {**params, **stats}).items()}
    if changed:
        arrays[changed].flat[0] += 1e-3
    save_file(arrays, path)
    return path


def start_of(images: Path | str, weights: Path | str = "none", **settings) -> RunStart:
    config = TrainConfig(images=str(images), model=TINY, weights=str(weights), **settings)
    return RunStart.of(load_network(resolve(config), WORKDIR))


@pytest.fixture(scope="module")
def start(image_folder: Path) -> RunStart:
    """The start of a run with random weights."""
    return start_of(image_folder)


@pytest.fixture
def folder(image_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(image_folder, tmp_path / "images")


def test_a_start_is_stored_as_json(image_folder, tmp_path):
    start = start_of(image_folder, save_weights(tmp_path / "a.safetensors"))
    assert RunStart.from_json(json.loads(json.dumps(start.to_json()))) == start
    assert (start.train.count, start.evaluation.count) == (36, 12)
    assert start.weights == start.file == str(tmp_path / "a.safetensors")
    assert RunStart.from_json({}) is None
    assert read_start(tmp_path) is None
    (tmp_path / "start.json").write_text('{"weights": 1}')
    with pytest.raises(ValueError, match=r"start\.json is damaged"):
        read_start(tmp_path)


def test_weights_may_move_but_not_change(image_folder, tmp_path):
    first = start_of(image_folder, save_weights(tmp_path / "a.safetensors"))
    moved = start_of(image_folder, shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors"))
    first.check(moved, "images", WORKDIR)
    first.check(start_of(image_folder, save_weights(tmp_path / "a.safetensors", classes=7)), "x", WORKDIR)
    key = next(iter(to_library(TINY, split(create_model(TINY, 2))[1])))
    changed = start_of(image_folder, save_weights(tmp_path / "b.safetensors", changed=key))
    with pytest.raises(
        ValueError, match=r"run was started with the weights '.*a\.safetensors' of SHA-256"
    ) as error:
        first.check(changed, "images", WORKDIR)
    assert f"now they are '{tmp_path / 'b.safetensors'}' of SHA-256 {changed.sha256[:12]}" in str(error.value)
    with pytest.raises(ValueError, match=r"but now they are 'none'\. Restore them, or use another workdir"):
        first.check(start_of(image_folder), "images", WORKDIR)


def test_random_weights_are_checked_too(image_folder, start):
    again, other = (start_of(image_folder, split_seed=0, seed=seed) for seed in (0, 1))
    start.check(again, "images", WORKDIR)
    with pytest.raises(
        ValueError, match=r"random initial values .* differ .* another version of transfer_jax"
    ):
        start.check(other, "images", WORKDIR)


def test_reinitialized_blocks_are_not_those_of_the_file(image_folder, tmp_path):
    file = save_weights(tmp_path / "a.safetensors")
    whole, part = start_of(image_folder, file), start_of(image_folder, file, reinitialize="top(1)")
    assert whole.sha256 != part.sha256
    assert whole.initial != part.initial


def test_preprocessing_must_not_change(start):
    other = dataclasses.replace(start, preprocessing={**start.preprocessing, "image_size": 48})
    with pytest.raises(ValueError, match=r"was started with: image_size was 32, now 48\. Restore it"):
        start.check(other, "images", WORKDIR)


def replace(folder: Path) -> None:
    shutil.copyfile(folder / "blue/05.png", folder / "red/00.png")


def replace_by_same_size(folder: Path) -> None:
    content = bytearray((folder / "red/00.png").read_bytes())
    content[-20] ^= 1
    (folder / "red/00.png").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "red/00.png").rename(folder / "red/01.png"), "with other names or classes"),
        (lambda folder: (folder / "red").rename(folder / "purple"), "with other names or classes"),
        (lambda folder: (folder / "red/00.png").unlink(), "48 training images then, 47 now"),
        (replace, "training images with the same names and other contents"),
        (replace_by_same_size, "training images with the same names and other contents"),
    ],
    ids=["renamed", "class renamed", "removed", "replaced", "replaced by the same size"],
)
def test_images_must_not_change(folder, start, change, named):
    before = dataclasses.replace(start, train=PartStart.of(load_dataset(str(folder))))
    change(folder)
    now = {"training": PartStart.of(load_dataset(str(folder)))}
    with pytest.raises(ValueError, match=f"'photos' has other images than when run was started: .*{named}"):
        before.check_images(now, "photos", WORKDIR)


def test_images_may_move_and_have_other_times(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    first, then = load_dataset(str(folder)), load_dataset(str(moved))
    assert first.fingerprint != then.fingerprint
    assert PartStart.of(first) == PartStart.of(then)


def test_the_order_and_the_weights_of_images_matter(toy_images):
    start = PartStart.of(toy_images)
    turned = toy_images.subset(np.arange(len(toy_images))[::-1])
    assert start.change(PartStart.of(turned), "training") == "the same training images in another order"
    weighted = dataclasses.replace(toy_images, weights=np.linspace(1, 2, 48).astype(np.float32))
    assert "other contents" in (start.change(PartStart.of(weighted), "training") or "")
    assert start.change(PartStart.of(toy_images), "training") is None


def test_of_many_images_a_sample_is_read_and_all_sizes(image_folder, monkeypatch):
    monkeypatch.setattr(run_start, "_READ_IMAGES", 5)
    dataset, read = load_dataset(str(image_folder)), []

    def count(index: int) -> Content:
        read.append(index)
        return dataset.read(index)

    start = PartStart.of(dataclasses.replace(dataset, read=count))
    assert len(read) == 5
    unread = min({*range(len(dataset))} - {*read})
    assert dataset.sizes is not None
    sizes = dataset.sizes.copy()
    sizes[unread] += 1
    longer = PartStart.of(dataclasses.replace(dataset, sizes=sizes))
    assert longer.content == start.content
    assert start.change(longer, "training") is not None
    monkeypatch.setattr(run_start, "_READ_BYTES", 1)
    assert PartStart.of(dataset).content == start.content  # One round of reads at least.


@pytest.mark.parametrize("rule", [1, 2])
def test_changes_of_large_sets_are_noticed(toy_images, monkeypatch, rule):
    monkeypatch.setattr(run_start, "_LARGE", 10)
    monkeypatch.setattr(run_start, "_READ_OF_LARGE", 5)
    start = PartStart.of(toy_images, None if rule == 2 else dataclasses.replace(BLANK, rule=1))
    assert (start.rule, bool(start.files)) == (rule, rule == 1)
    now = PartStart.of(toy_images, start)
    assert (now, start.change(now, "training")) == (start, None)
    renamed = dataclasses.replace(toy_images, names=[*toy_images.names[:-1], "other"])
    relabelled = dataclasses.replace(toy_images, labels=np.roll(toy_images.labels, 1))
    turned = toy_images.subset(np.arange(len(toy_images))[::-1])
    other = dataclasses.replace(toy_images, read=lambda index: toy_images.read((index + 1) % 48))
    for dataset, change in (
        (renamed, "other names or classes"),
        (relabelled, "other names or classes"),
        (turned, "another order"),
        (other, "other contents"),
    ):
        assert change in (start.change(PartStart.of(dataset, start), "training") or "")


BLANK = PartStart(count=0, files="", order="", sizes="", content="")


def test_names_by_a_rule_are_hashed(toy_images, monkeypatch):
    monkeypatch.setattr(run_start, "_LARGE", 10)
    ruled = [
        NumberedNames("a ", 48),
        NumberedNames("a ", np.arange(48)),
        ChosenNames(NumberedNames("a ", 99), np.arange(48)),
    ]
    orders = {PartStart.of(dataclasses.replace(toy_images, names=names)).order for names in ruled}
    assert len(orders) == 1
    others = [
        NumberedNames("b ", 48),
        NumberedNames("a ", np.arange(48) + 1),
        ChosenNames(ruled[1], np.arange(48)[::-1]),
    ]
    for names in others:
        orders.add(PartStart.of(dataclasses.replace(toy_images, names=names)).order)
    assert len(orders) == 4


def test_names_that_are_not_utf_8_are_hashed(toy_images):
    names = ["a\udcff.png", *toy_images.names[1:]]
    assert len(PartStart.of(dataclasses.replace(toy_images, names=names)).order) == 64


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Two published sets of the tiny network that are not on this machine; returns the file of a set."""
    known = {
        name: WeightsSpec(
            name=name,
            model=TINY,
            address=str(tmp_path / f"{name}.safetensors"),
            preprocessing=find_spec("efficientnet_lite0").preprocessing,
        )
        for name in ("tiny.first", "tiny.second")
    }
    monkeypatch.setattr(sys.modules[WeightsSpec.__module__], "_catalogue", lambda: known)
    return lambda name: Path(known[name].address)


def test_auto_stays_the_set_that_the_run_started_with(image_folder, tmp_path, published):
    config = TrainConfig(images=str(image_folder), model=TINY, image_size=32)
    save_weights(published("tiny.second"))
    start = RunStart.of(load_network(resolve(config), WORKDIR))
    assert start.weights == "tiny.second"
    workdir = tmp_path / "run"
    claim(config, workdir, {"start.json": json.dumps(start.to_json())})
    save_weights(published("tiny.first"), seed=2)
    assert find_spec(TINY).name == "tiny.first"
    resumed = resolve(config, workdir=workdir)
    assert resumed.network.spec is not None
    assert resumed.network.spec.name == "tiny.second"
    start.check(RunStart.of(load_network(resumed, workdir)), "images", workdir)
    published("tiny.second").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"started with the weights 'tiny\.second', and 'auto' is 'tiny\.first' now"
    ):
        resolve(config, workdir=workdir)


def test_the_images_of_a_workdir_are_checked(toy_images: ImageDataset, start, tmp_path):
    check_images(tmp_path, "photos", {"validation": toy_images})  # An earlier version started the run.
    (tmp_path / "start.json").write_text(json.dumps(start.to_json()))
    with pytest.raises(ValueError, match="12 validation images then, 48 now"):
        check_images(tmp_path, "photos", {"validation": toy_images})


def test_training_images_are_recognized_in_another_folder(folder, start, tmp_path):
    config = TrainConfig(images="elsewhere", model=TINY, weights="none")
    claim(config, tmp_path / "run", {"start.json": json.dumps(start.to_json())})
    assert count_trained(tmp_path / "run", load_dataset(str(folder))) == 36
    (folder / "red").rename(folder / "purple")
    assert count_trained(tmp_path / "run", load_dataset(str(folder))) is None  # Those of the run are gone.
