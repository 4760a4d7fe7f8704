import pytest

from transfer_jax.commands.config_options import given_fields


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
