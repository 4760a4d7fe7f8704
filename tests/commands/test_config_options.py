from pathlib import Path

import pytest

from transfer_jax import TrainConfig
from transfer_jax.commands.config_options import (
    default_workdir,
    given_fields,
    resolved_run,
    split_schedule,
    with_schedule,
)
from transfer_jax.freezing.recipes import five_steps


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ("train --images x", ("images",)),
        ("train --images=x --image-size 96 --image_size 96", ("image_size", "images")),
        ("train --schedule.phases.0.epochs 3 --augmentation.no-flip-vertical", ("augmentation", "schedule")),
        ("train --schedule head", ("schedule",)),
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


@pytest.mark.parametrize(
    ("options", "left", "text"),
    [
        (["--seed", "1"], ["--seed", "1"], None),
        (["--schedule", "head", "--seed", "1"], ["--seed", "1"], "head"),
        (["--schedule=lora(rank=4)"], [], "lora(rank=4)"),
        (["--schedule.phases.0.epochs", "3"], ["--schedule.phases.0.epochs", "3"], None),
    ],
)
def test_a_schedule_is_taken_from_the_options(options, left, text):
    assert split_schedule(options) == (left, text)


@pytest.mark.parametrize("options", [["--schedule"], ["--schedule", "--seed"]])
def test_a_schedule_needs_a_recipe(options):
    with pytest.raises(ValueError, match="--schedule needs a recipe, such as head"):
        split_schedule(options)


def test_a_config_with_another_schedule():
    config = TrainConfig(images="photos", seed=3)
    found = with_schedule(config, "five_steps(top(1), epochs=2)")
    assert (found.schedule, found.seed) == (five_steps("top(1)", epochs=2), 3)
    assert config.schedule == five_steps("top(2)")


@pytest.mark.parametrize("schedule", [True, False])
def test_commands_without_a_schedule_print_no_defaults_of_it(schedule, image_folder, tmp_path, capsys):
    config = TrainConfig(images=str(image_folder), model="efficientnet_lite_tiny", weights="none")
    resolved_run(config, (), tmp_path, schedule=schedule)
    printed = capsys.readouterr().err
    assert "val fraction: " in printed
    for field in ("schedule", "batch size", "keep epoch"):
        assert (f"  {field}: " in printed) is schedule
