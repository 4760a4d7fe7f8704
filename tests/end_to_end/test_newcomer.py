"""What somebody sees who gives a folder of images and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from transfer_jax import fit
from transfer_jax.data.tfds import DATA_DIR_VARIABLE
from transfer_jax.report.trackers import TRACKERS
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.runs.workdir import read_config

TINY = ("--model", "efficientnet_lite_tiny", "--weights", "none")


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Pieces of two photographs, 11 each; four of the cat are there twice, one of them as coffee."""
    folder = tmp_path / "photographs"
    for name, photograph in (("cat", skimage.data.chelsea()), ("coffee", skimage.data.coffee())):
        (folder / name).mkdir(parents=True)
        for index in range(11):
            top, left = 60 * (index // 4), 90 * (index % 4)
            Image.fromarray(photograph[top : top + 90, left : left + 100]).save(
                folder / name / f"{index:02}.png"
            )
    for index in range(4):
        copy = Image.open(folder / "cat" / f"{index:02}.png").resize((160, 144))
        copy.save(folder / ("coffee" if index == 3 else "cat") / f"copy {index}.jpg", quality=85)
    return folder


def test_images_alone_are_enough(photographs: Path, run: Callable, tmp_path: Path) -> None:
    """Few images: the head alone trains. Near duplicates are kept together. Each choice has a line."""
    workdir = tmp_path / "run"
    command = ("train", "--images", photographs, *TINY, "--workdir", workdir)
    done = run(*command)
    assert done.code == 0, done.err
    choices = {choice["field"]: choice for choice in json.loads((workdir / "choices.json").read_text())}
    names = ("val_fraction", "keep_together", "image_size", "schedule", "batch_size", "keep_epoch", "cache")
    assert (*choices,) == names
    assert choices["keep_together"]["why"].startswith("8 images have near duplicates")
    assert choices["schedule"]["value"] == "head: head x 60"
    said = " ".join(done.err.split())
    for choice in choices.values():
        assert choice["why"] in said
    findings = {finding["kind"]: finding for finding in json.loads((workdir / "findings.json").read_text())}
    assert {*findings} == {"two_labels", "copies"}
    assert findings["copies"]["figures"]["images"] == 4
    assert "cat/03.png and coffee/copy 3.jpg: 'cat' and 'coffee'" in findings["two_labels"]["text"]
    assert findings["two_labels"]["text"] in said

    config = read_config(workdir)
    assert (config.image_size, config.batch_size, config.keep_together) == (32, 8, True)
    made = load_network(resolve(config), workdir)
    for index in range(4):
        copy = f"{'coffee' if index == 3 else 'cat'}/copy {index}.jpg"
        assert (copy in made.train.names) == (f"cat/{index:02}.png" in made.train.names)

    again = run(*command)
    assert (again.code, again.out, again.err) == (0, done.out, "")
    assert fit(config, workdir).phases[0].name == "head"
    other = run(*command, "--batch-size", 16)
    assert other.code == 2
    assert "batch_size was 8, now 16" in other.err


def test_leaks_are_told_where_the_user_splits(photographs: Path, run: Callable, tmp_path: Path) -> None:
    command = ("--images", photographs, *TINY, "--val-fraction", 0.4, "--seed", 1, "--no-keep-together")
    checked = run("check", *command, "--out", tmp_path / "findings.json")
    assert checked.code == 0, checked.err
    (leak, *_) = json.loads((tmp_path / "findings.json").read_text())
    assert leak["kind"] == "leak"
    assert leak["text"] in " ".join(checked.out.split())
    assert checked.out.splitlines()[-1] == "26 images (cat 14, coffee 12), 3 findings"
    together = run("check", *command[:-1], "--keep-together")
    assert "leak" not in together.out
    assert "near duplicate among" not in together.out
    assert together.out.splitlines()[-1].endswith("2 findings")


def test_what_a_plan_shows_is_what_is_trained(
    photographs: Path, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run("plan", "--images", photographs, *TINY, "--val-fraction", 0.2)
    assert shown.code == 0, shown.err
    assert "schedule: head: head x 60" in shown.err
    assert "for validation" not in shown.err
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_split_already(photographs: Path, run: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    for part, chosen in (("train", slice(0, 8)), ("val", slice(8, 11)), ("test", slice(0, 11, 3))):
        for name in ("cat", "coffee"):
            (folder / part / name).mkdir(parents=True)
            for file in sorted((photographs / name).glob("??.png"))[chosen]:
                shutil.copy(file, folder / part / name)
    workdir = tmp_path / "run"
    command = ("train", "--images", folder, *TINY, "--workdir", workdir, "--schedule.phases.0.epochs", 2)
    command = (*command, "--schedule.phases.1.epochs", 1, "--schedule.phases.1.views", 1)
    done = run(*command)
    assert done.code == 0, done.err
    split = "split: that of the source; 16 training, 6 validation and 8 test images"
    assert split in " ".join(done.err.split())
    rows = (workdir / "predictions.csv").read_text().splitlines()[1:]
    assert len(rows) == 6
    assert all(row.startswith("val/") for row in rows)
    own = run("evaluate", workdir)
    assert own.code == 0, own.err
    assert "6 validation images (none trained on): accuracy" in own.out
    assert "8 test images (none trained on; they chose nothing): accuracy" in own.out
    assert "8 test images (none trained on; they chose nothing): accuracy" in done.out
    # Six of the test images are copies of training images.
    assert "8 test images (6 trained on): accuracy" in run("evaluate", workdir, "--images", folder).out
    tested = run("evaluate", workdir, "--images", folder / "test")
    assert tested.code == 0, tested.err
    assert "8 images (6 trained on): accuracy" in tested.out
    refused = run(*command[:-2], "--keep-together", "--workdir", tmp_path / "other")
    assert refused.code == 2
    assert "has its own split" in refused.err


def test_trackers_go_with_a_run(images: Path, weights: Path, run: Callable, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    command = ("train", "--images", images, "--model", "efficientnet_lite_tiny", "--weights", weights)
    command = (*command, "--workdir", tmp_path / "run", "--no-check", "--schedule.phases.0.epochs", 3)
    command = (*command, "--schedule.phases.1.epochs", 1, "--schedule.phases.1.views", 1)
    done = run(*command, "--trackers", "tensorboard")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run/trackers.json").read_text()) == {"tensorboard": "tensorboard"}
    (file,) = (tmp_path / "run/tensorboard").iterdir()
    content = file.read_bytes()
    for tag in (b"train/loss", b"evaluation/accuracy", b"final/accuracy", b"confusion"):
        assert tag in content
    assert not (tmp_path / "run/findings.json").exists()
    again = run(*command)  # Trackers do not change what is learnt.
    assert again.code == 0, again.err
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1


def test_a_tracker_that_is_not_installed(
    images: Path, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", ("no_such_package", TRACKERS["wandb"][1]))
    monkeypatch.setattr("transfer_jax.extras._OPTIONAL", {"no_such_package": ("wandb", "wandb")})
    done = run("train", "--images", images, *TINY, "--workdir", tmp_path / "run", "--trackers", "wandb")
    assert done.code == 2
    assert "pip install 'transfer_jax[wandb]'" in done.err
    assert not (tmp_path / "run").exists()
