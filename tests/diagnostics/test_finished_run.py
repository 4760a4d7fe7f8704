import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from transfer_jax.data import load_dataset
from transfer_jax.diagnostics.finished_run import FinishedRun
from transfer_jax.models.paths import block_of
from transfer_jax.report.progress import Silent


@pytest.fixture
def copy(convolutional, tmp_path):
    """Returns a copy of the run that a test may damage."""
    shutil.copytree(
        convolutional, tmp_path / "copy", ignore=shutil.ignore_patterns("features", "checkpoints")
    )
    return tmp_path / "copy"


def test_arrays_at_the_end(convolutional):
    finished = FinishedRun(convolutional, Silent())
    written = load_file(convolutional / "model/weights.safetensors")
    assert finished.end.keys() == written.keys() == finished.start.keys()
    for path, array in written.items():
        np.testing.assert_array_equal(finished.end[path], array)
    moved = {path for path in written if not np.array_equal(finished.start[path], written[path])}
    assert set(map(block_of, moved)) == finished.changed == {"blocks.7", "top", "head"}
    assert finished.boundary == "blocks.6"


def test_the_images_are_those_of_the_run(convolutional):
    train, held_out = FinishedRun(convolutional, Silent()).images
    assert (len(train), len(held_out)) == (36, 12)
    assert held_out.groups is not None
    assert set(held_out.groups) == {"left", "right"}


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("start.json", "has other images than when .* was started: "),
        (None, "has different images or labels than when"),  # An earlier version trained the run.
    ],
)
def test_different_images_are_errors(copy, start, message):
    dataset = load_dataset(json.loads((copy / "config.json").read_text())["images"])
    if start is None:
        (copy / "start.json").unlink()
    fewer = dataset.subset(np.arange(1, len(dataset)))
    with pytest.raises(ValueError, match=message):
        _ = FinishedRun(copy, Silent(), fewer).images
    swapped = dataclasses.replace(dataset, labels=((dataset.labels + 1) % 3).astype(np.int32))
    with pytest.raises(ValueError, match=message):
        _ = FinishedRun(copy, Silent(), swapped).images


def test_other_weights_are_an_error(copy):
    start = json.loads((copy / "start.json").read_text())
    (copy / "start.json").write_text(json.dumps({**start, "weights": "a.npz", "sha256": "0" * 64}))
    with pytest.raises(ValueError, match=r"'a\.npz' .* of SHA-256 0{12}…, but now they are '.*tiny\.saf"):
        _ = FinishedRun(copy, Silent()).run


def test_a_different_start_of_a_run_of_an_earlier_version_is_an_error(copy):
    (copy / "start.json").unlink()
    (certificate,) = (copy / "certificates").glob("*.json")
    content = json.loads(certificate.read_text())
    path = min(content["frozen"])
    content["frozen"][path] = "0" * 64
    certificate.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"differ from those at the start of the run: {path} differs"):
        _ = FinishedRun(copy, Silent()).run


def test_errors_name_missing_files(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        FinishedRun(tmp_path, Silent())
    (copy / "predictions.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not finished: predictions\.csv is missing"):
        _ = FinishedRun(copy, Silent()).predictions
    shutil.rmtree(copy / "model")
    with pytest.raises(FileNotFoundError, match="no trained model"):
        _ = FinishedRun(copy, Silent()).end
