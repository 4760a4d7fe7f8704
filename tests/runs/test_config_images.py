"""Validation images that a config names beside the training images."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.report.predictions import read_predictions
from transfer_jax.runs import fit
from transfer_jax.runs.resolve import resolve
from transfer_jax.runs.workdir import read_config


@pytest.fixture
def config(image_folder: Path, tmp_path: Path, toy: str) -> TrainConfig:
    """Trains on all images, and validates on six images of two of the classes."""
    for name in ("red", "green"):
        (tmp_path / "others" / name).mkdir(parents=True)
        for path in sorted((image_folder / name).iterdir())[:3]:
            shutil.copy(path, tmp_path / "others" / name / f"other {path.name}")
    phase = Phase(name="one", train="head", epochs=1, learning_rate=0.1)
    return TrainConfig(
        images=str(image_folder),
        eval_images=str(tmp_path / "others"),
        model=toy,
        weights="none",
        schedule=Schedule((phase,)),
        batch_size=12,
        threads=1,
    )


def test_all_images_are_trained_on_and_the_others_validate(config):
    resolved = resolve(config)
    assert (len(resolved.train), len(resolved.evaluation), resolved.test) == (48, 6, None)
    assert resolved.evaluation.counts() == {"blue": 0, "green": 3, "red": 3}
    assert resolved.evaluation.class_names == resolved.train.class_names
    tested = resolve(dataclasses.replace(config, test_fraction=0.25))
    assert tested.test is not None
    assert (len(tested.train), len(tested.evaluation), len(tested.test)) == (36, 6, 12)


def test_a_class_of_the_validation_images_alone_is_refused(config):
    (Path(config.eval_images) / "red").rename(Path(config.eval_images) / "crimson")
    with pytest.raises(ValueError, match=r"eval_images='.*others': the images have classes .*'crimson'"):
        resolve(config)


def test_images_from_python_have_their_own(config, toy_images, tmp_path):
    with pytest.raises(ValueError, match=r"eval_images='.*others' needs images that the config names"):
        fit(config, tmp_path / "run", dataset=toy_images)


@pytest.mark.extended
def test_a_run_is_read_again_with_the_same_validation_images(config, tmp_path):
    workdir = tmp_path / "run"
    scores = fit(config, workdir).metrics
    names = read_predictions(workdir / "predictions.csv").names
    assert len(names) == 6
    assert all(Path(name).name.startswith("other ") for name in names)
    moved = tmp_path / "moved"
    Path(config.eval_images).rename(moved)
    again = fit(dataclasses.replace(config, eval_images=str(moved)), workdir)
    assert again.metrics == scores
    assert read_config(workdir).eval_images == str(moved)
    file = sorted(moved.rglob("*.png"))[0]
    shutil.copyfile(sorted(moved.rglob("*.png"))[-1], file)
    shutil.copytree(moved, tmp_path / "changed")
    with pytest.raises(ValueError, match="validation images with the same names and other contents"):
        fit(dataclasses.replace(config, eval_images=str(tmp_path / "changed")), workdir)
