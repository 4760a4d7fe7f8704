from pathlib import Path

import pytest

from transfer_jax import TrainConfig
from transfer_jax.commands.config_options import default_workdir, given_fields


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ("train --images x", ("images",)),
        ("train --images=x --image-size 96 --image_size 96", ("image_size", "images")),
        ("train --schedule.phases.0.epochs 3 --augmentation.no-flip-vertical", ("augmentation", "schedule")),
        ("train --no-taps --keep-together", ("keep_together", "taps")),
        ("train --workdir runs/seed --profile --check", ()),
        ("launch --processes 2", ()),
    ],
)
def test_fields_that_options_set(arguments, fields):
    assert given_fields(arguments.split()) == fields


@pytest.mark.parametrize(
    ("images", "workdir"),
    [
        ("photos/pets/", "runs/pets"),
        ("elpv:sure", "runs/elpv-sure"),
        (".", "runs/pets"),
        ("..", "runs/photos"),
        ("/", "runs/images"),
        ("csv:lists/cats.csv", "runs/cats.csv"),
        (
            "tfds:cats/big:1.0.0:train[:80%]?label=about/breed",
            "runs/tfds-cats-big-1.0.0-train-80-label-about-breed",
        ),
    ],
)
def test_default_workdirs(images, workdir, tmp_path, monkeypatch):
    (tmp_path / "photos" / "pets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "photos" / "pets")
    assert default_workdir(TrainConfig(images=images)) == Path(workdir)
