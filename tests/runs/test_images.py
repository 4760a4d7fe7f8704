import shutil

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.data import BadImageError, scan_images
from transfer_jax.report.progress import Silent
from transfer_jax.runs.environment import write_environment
from transfer_jax.runs.images import check_quality, run_images, split_images
from transfer_jax.runs.resolve import resolve

TINY = "efficientnet_lite_tiny"


def config(folder, **changes) -> TrainConfig:
    return TrainConfig(**{"images": str(folder), "model": TINY, "weights": "none", **changes})


@pytest.mark.parametrize("choice", ["error", "skip"])
def test_bad_images(tmp_path, image_folder, choice):
    folder = tmp_path / "images"
    for path in image_folder.rglob("*.png"):
        copy = folder / path.relative_to(image_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (folder / "red" / "00.png").write_bytes(b"no image")
    dataset = run_images(config(folder, on_bad_image=choice), Silent())
    if choice == "error":
        with pytest.raises(BadImageError, match=r"^red/00\.png: not an image"):
            [dataset.image(index) for index in range(len(dataset))]
    else:
        assert len(dataset) == 47
        assert "red/00.png" not in dataset.names
        (line,) = resolve(config(folder, on_bad_image=choice)).notes["skipped_images.txt"].splitlines()
        assert line.startswith("red/00.png: not an image")


def test_images_that_cannot_be_split_are_a_finding(toy_images):
    scan = scan_images(toy_images)
    found = {
        each.kind: each for each in check_quality(config("toy", val_fraction=0.01), toy_images, scan, 32)
    }
    assert "set val_fraction (--val-fraction) to" in found["split"].text
    assert "unevaluated" not in found
    assert "split" not in {each.kind for each in check_quality(config("toy"), toy_images, scan, 32)}


def test_a_split_may_have_a_seed_of_its_own_and_fewer_images(toy_images):
    def names(**changes) -> list[list]:
        parts = split_images(toy_images, config("toy", **changes))
        return [list(part.names) for part in parts if part is not None]

    assert names(seed=3, split_seed=1) == names(seed=1)
    train, held_out = names(seed=1)
    few, same = names(seed=1, images_per_class=4)
    assert same == held_out
    assert len(few) == 12
    assert {*few} < {*train}
    limited = names(seed=1, images_per_class=4, test_fraction=0.25, val_fraction=0.5)
    assert [len(part) for part in limited] == [12, 24, 12]
    with pytest.raises(ValueError, match="images_per_class must be at least 1, got 0"):
        config("toy", images_per_class=0)


@pytest.mark.parametrize("bad", [("red",), ("red", "green", "blue")])
def test_classes_of_bad_images(tmp_path, image_folder, bad):
    lines = []

    class Log(Silent):
        def log(self, message):
            lines.append(message)

    shutil.copytree(image_folder, tmp_path / "images")
    for name in bad:
        for file in (tmp_path / "images" / name).iterdir():
            file.write_bytes(b"")
    given = config(tmp_path / "images", on_bad_image="skip")
    if len(bad) == 3:
        with pytest.raises(
            BadImageError, match=r"none of the 48 images can be read, such as .*the file is empty"
        ):
            resolve(given, scan=True)
    else:
        resolve(given, scan=True, progress=Log())
        assert "classes without a readable image: 'red'; the model cannot learn them" in lines


def test_images_from_python_must_be_passed_again(tmp_path, image_folder):
    write_environment(tmp_path, images_given=True)
    given = config(image_folder)
    with pytest.raises(
        ValueError, match="was trained on images that were passed from Python; pass them again"
    ):
        run_images(given, Silent(), workdir=tmp_path)
    dataset = run_images(given, Silent())
    assert len(run_images(given, Silent(), dataset, workdir=tmp_path)) == 48
    write_environment(tmp_path)
    assert len(run_images(given, Silent(), workdir=tmp_path)) == 48
