import numpy as np
import pytest

from transfer_jax.diagnostics.finished_run import FinishedRun
from transfer_jax.diagnostics.interpolation import interpolate, interpolation
from transfer_jax.diagnostics.scoring import Scorer, sample_images
from transfer_jax.models.paths import block_of
from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.report.progress import Silent
from transfer_jax.runs.predict import make_predictor
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.saved_model import SavedModel


def scores(finished, arrays) -> tuple[float, float]:
    """Returns accuracy and log loss on the validation images, by the functions of `predict`."""
    held_out, run = finished.images[1], finished.run
    saved = SavedModel.describe(finished.workdir)
    probabilities = make_predictor(saved, run.graphdef, held_out)(arrays, Silent())
    found = SingleLabel(held_out.class_names).scores(probabilities, held_out.labels)
    return found["accuracy"], found["log_loss"]


def test_the_ends_match_the_run(finished):
    first, middle, last = interpolation(finished, [0, 0.5, 1], 1000)
    head = {path: array for path, array in finished.end.items() if block_of(path) == "head"}
    for place, arrays, prefix in (
        (first, finished.start, ""),
        (first, {**finished.start, **head}, "backbone_"),
        (middle, interpolate(finished.start, finished.end, 0.5), ""),
        (last, finished.end, ""),
        (last, finished.end, "backbone_"),
    ):
        accuracy, loss = scores(finished, arrays)
        assert place[f"{prefix}accuracy"] == accuracy
        assert place[f"{prefix}log_loss"] == pytest.approx(loss, rel=1e-4)
    assert [first["alpha"], middle["alpha"], last["alpha"]] == [0, 0.5, 1]
    lines = read_metrics(finished.workdir / "metrics.jsonl")
    scored = [line for line in lines if line["kind"] == "evaluation"][-1]
    assert last["accuracy"] == scored["accuracy"]
    assert last["log_loss"] == pytest.approx(scored["log_loss"], rel=1e-3)
    assert first["log_loss"] != pytest.approx(last["log_loss"], rel=1e-3)


def test_statistics_are_interpolated_too(convolutional):
    finished = FinishedRun(convolutional, Silent())
    path = next(path for path in finished.start if path.endswith("top/norm/mean"))
    start, end = (np.asarray(arrays[path]) for arrays in (finished.start, finished.end))
    assert (start != end).any()
    found = interpolate(finished.start, finished.end, 0.25)[path]
    np.testing.assert_allclose(found, 0.75 * start + 0.25 * end, rtol=1e-6)


def test_an_unchanged_backbone_has_no_second_line(finished, monkeypatch):
    monkeypatch.setitem(finished.__dict__, "changed", frozenset({"head"}))
    monkeypatch.setitem(finished.__dict__, "boundary", "pre_logits")
    (place,) = interpolation(finished, [1], 1000)
    assert set(place) == {"alpha", "accuracy", "log_loss"}


def test_unchanged_blocks_run_once_with_the_same_result(finished):
    held_out = finished.images[1]
    often, once = Scorer(finished, held_out, calls=2), Scorer(finished, held_out)
    np.testing.assert_allclose(often(finished.end), once(finished.end), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(often(finished.start), once(finished.start), rtol=1e-4, atol=1e-6)


def test_some_images_are_drawn_by_the_seed(toy_images):
    few = sample_images(toy_images, 10, 0)
    assert len(few) == len(set(few.names)) == 10
    assert list(few.names) == list(sample_images(toy_images, 10, 0).names)
    assert list(few.names) != list(sample_images(toy_images, 10, 1).names)
    assert sample_images(toy_images, 48, 0) is toy_images
