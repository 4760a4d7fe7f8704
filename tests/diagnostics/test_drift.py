import numpy as np
import pytest

from transfer_jax.diagnostics.drift import similarity_to_start, weight_distance
from transfer_jax.diagnostics.finished_run import FinishedRun, NotApplicable
from transfer_jax.report.progress import Silent
from transfer_jax.training.cka import LEAST_IMAGES


def test_distance_by_hand():
    start = {
        "backbone/a/x/kernel": np.array([3.0, 0.0]),
        "backbone/a/y/bias": np.array([4.0]),
        "backbone/b/kernel": np.ones(4),
        "head/classifier/kernel": np.zeros(3),
    }
    end = {
        **start,
        "backbone/a/y/bias": np.array([4.5]),
        "backbone/a/x/kernel": np.array([3.0, 1.2]),
        "head/classifier/kernel": np.ones(3),
    }
    assert weight_distance(start, end) == {"a": pytest.approx(1.3 / 5), "b": 0.0}


def test_unchanged_blocks_have_a_similarity_of_1(convolutional):
    finished = FinishedRun(convolutional, Silent())
    found = similarity_to_start(finished, 256)
    assert tuple(found) == finished.run.block_names
    trained = finished.run.block_names[-3:]
    assert finished.boundary == finished.run.block_names[-4]
    for name, value in found.items():
        assert (value == 1) == (name not in trained), name
        assert value <= 1 + 1e-3


def test_activations_of_a_trained_transformer(transformer):
    finished = FinishedRun(transformer, Silent())
    assert finished.boundary is None
    found = similarity_to_start(finished, 256)
    assert tuple(found) == finished.run.block_names
    assert all(0 < value < 1.001 for value in found.values())
    assert found["embed"] > found["pre_logits"]


def test_a_run_compared_with_itself_has_a_similarity_of_1(finished, monkeypatch):
    monkeypatch.setitem(finished.__dict__, "end", finished.start)
    monkeypatch.setitem(finished.__dict__, "boundary", None)  # Computes all blocks.
    found = similarity_to_start(finished, 12)
    assert list(found.values()) == pytest.approx([1] * len(found), abs=1e-5)


def test_too_few_images(finished):
    with pytest.raises(NotApplicable, match=rf"3 validation images are too few .* {LEAST_IMAGES} are needed"):
        similarity_to_start(finished, 3)
