import pytest

from transfer_jax.report.public_names import public_command, public_place


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("photos", "photos"),
        ("runs/photos", "runs/photos"),
        ("/home/ann/photos/", "photos"),
        ("~/photos", "photos"),
        ("../secret/photos", "photos"),
        ("C:\\Users\\ann\\photos", "photos"),
        ("csv:/home/ann/table.csv?label=kind", "csv:table.csv?label=kind"),
        ("folder:/data/photos", "folder:photos"),
        ("--images=/home/ann/photos", "--images=photos"),
        ("tfds:cats/large", "tfds:cats/large"),
        ("hf://ann/photos", "hf://ann/photos"),
        ("https://host/net.pth", "https://host/net.pth"),
        ("/", "images"),
    ],
)
def test_folders_of_this_machine_are_left_out(place, shown):
    assert public_place(place) == shown


def test_a_command_stays_one_for_a_shell():
    words = ["transfer-jax", "train", "--images", "/home/ann/my photos", "--loss", "a(b=1)"]
    assert public_command(words) == "transfer-jax train --images 'my photos' --loss 'a(b=1)'"
