"""The commands `predict` and `evaluate` with bad images and failures."""

import csv
import errno
import re
import shutil

import numpy as np
import pytest

from transfer_jax import cli
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs.interrupt import Terminated
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.saved_model import SavedModel

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def saved(tmp_path_factory, toy):
    _, params, stats = split(create_model(toy, 3, seed=1))
    preprocessing = Preprocessing(image_size=16, mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0))
    folder = tmp_path_factory.mktemp("run")
    SavedModel(model=toy, task=SingleLabel(CLASSES), preprocessing=preprocessing, temperature=4.0).save(
        folder / "model", {**params, **stats}
    )
    return folder


@pytest.fixture
def spoilt(tmp_path, image_folder):
    """A folder of 48 labelled images, of which two are bad."""
    shutil.copytree(image_folder, tmp_path / "images")
    names = sorted(path.name for path in (tmp_path / "images" / "red").iterdir())
    (tmp_path / "images" / "red" / names[0]).write_bytes(b"")
    (tmp_path / "images" / "red" / names[2]).write_text("<html>not found</html>")
    return tmp_path / "images"


def rows(path) -> list[dict]:
    with path.open(newline="") as file:
        return [*csv.DictReader(file)]


def test_bad_images_cost_one_line(saved, spoilt, tmp_path, capfd):
    out = tmp_path / "out.csv"
    assert cli.main(["predict", str(saved), str(spoilt), "--out", str(out)]) == 0
    shown = capfd.readouterr()
    assert "46 predictions: " in shown.out
    (line,) = [
        line for line in shown.err.splitlines() if line.startswith("Bad images: 2 of 48, left without ")
    ]
    assert "the file is empty" in line
    found = rows(out)
    assert len(found) == 48
    bad = [row for row in found if row["error"]]
    assert [row["error"].split(" (")[0] for row in bad] == [
        "the file is empty",
        "not an image of a known format",
    ]
    assert all(row["predicted"] == row["p(red)"] == "" for row in bad)
    assert all(row["predicted"] in CLASSES for row in found if row not in bad)


def test_a_table_names_bad_images(saved, spoilt, capfd):
    assert cli.main(["predict", str(saved), str(spoilt / "red")]) == 0
    assert capfd.readouterr().out.count("cannot be read") == 2


def test_predict_stops_on_demand(saved, spoilt, tmp_path, capfd):
    command = ["predict", str(saved), str(spoilt / "red"), "--on-bad-image", "error"]
    assert cli.main([*command, "--out", str(tmp_path / "out.csv")]) == 2
    assert "the file is empty; --on-bad-image skip" in capfd.readouterr().err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("command", [["predict"], ["evaluate", "--images"]])
def test_no_good_image_is_an_error(saved, spoilt, capfd, command):
    for file in spoilt.rglob("*.png"):
        file.write_bytes(b"")
    name, *option = command
    assert cli.main([name, str(saved), *option, str(spoilt)]) == 2
    assert "error: no image can be read (48 of 48 are bad), such as " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "Stopped after 5 of 48 images"),
        (Terminated(), 75, "Stopped after 5 of 48 images"),
        (MemoryError("no memory"), None, ""),
        (OSError("no disk"), 2, "error: no disk"),
    ],
)
def test_predictions_before_a_failure_are_written(
    saved, image_folder, tmp_path, monkeypatch, capfd, failure, code, message
):
    def batches(*arguments, **options):
        yield np.full((3, 3), 1 / 3)
        yield np.full((2, 3), 1 / 3)
        raise failure

    monkeypatch.setattr("transfer_jax.runs.predict.predict_batches", batches)
    command = ["predict", str(saved), str(image_folder), "--out", str(tmp_path / "out.csv")]
    if code is None:
        with pytest.raises(type(failure)):
            cli.main(command)
    else:
        assert cli.main(command) == code
    assert message in capfd.readouterr().err
    assert len(rows(tmp_path / "out.csv")) == 5


def test_predictions_are_printed_if_the_file_cannot_be_written(
    saved, image_folder, tmp_path, monkeypatch, capfd
):
    def full(path, *args, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("transfer_jax.report.predictions.write_predictions", full)
    command = ["predict", str(saved), str(image_folder / "red"), "--out", str(tmp_path / "out.csv")]
    assert cli.main(command) == 2
    shown = capfd.readouterr()
    assert "No space left on device" in shown.err
    assert shown.out.count("%") == 16


def test_the_file_is_checked_first(saved, image_folder, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("transfer_jax.runs.predict.predict_batches", None)
    command = ["predict", str(saved), str(image_folder), "--out", str(tmp_path / "nowhere" / "out.csv")]
    assert cli.main(command) == 2
    assert "nowhere does not exist" in capfd.readouterr().err


def test_bad_images_are_left_out_of_the_scores(saved, spoilt, image_folder, capfd):
    assert cli.main(["evaluate", str(saved), "--images", str(spoilt)]) == 0
    shown = capfd.readouterr()
    assert "Bad images: 2 of 48, left out of the scores: red/" in shown.err
    assert [line.split()[-1] for line in shown.out.splitlines() if line.split()[:1] == ["red"]] == ["14"]
    assert cli.main(["evaluate", str(saved), "--images", str(spoilt), "--on-bad-image", "error"]) == 2
    assert "the file is empty; --on-bad-image skip" in capfd.readouterr().err


def test_calibrated_probabilities_are_less_certain(saved, image_folder, tmp_path, capfd):
    found = {}
    for option in ((), ("--calibrated",)):
        out = tmp_path / f"out{len(option)}.csv"
        assert cli.main(["predict", str(saved), str(image_folder), "--out", str(out), *option]) == 0
        found[option] = np.array([[float(row[f"p({name})"]) for name in CLASSES] for row in rows(out)])
    plain, scaled = found.values()
    powers = plain**0.25
    np.testing.assert_allclose(scaled, powers / powers.sum(1, keepdims=True), atol=1e-5)
    capfd.readouterr()
    shown = []
    for option in ((), ("--calibrated",)):
        assert cli.main(["evaluate", str(saved), "--images", str(image_folder), *option]) == 0
        shown.append(" ".join(capfd.readouterr().out.split()))
    both = re.search(
        r"Calibration error: ([\d.]+)%, with the temperature 4 \(--calibrated\): ([\d.]+)%", shown[0]
    )
    assert both is not None
    assert f"Calibration error: {both[2]}%" in shown[1]
    assert ", calibrated" in shown[1]
