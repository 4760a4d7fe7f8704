import numpy as np
import pytest

from transfer_jax.diagnostics import reliability


def test_several_labels_are_calibrated_label_by_label():
    probabilities = np.array([[0.1, 0.7], [0.1, 0.7], [0.1, 0.7], [0.1, 0.7]])
    labels = np.array([[0, 1], [0, 1], [0, 1], [1, 0]], np.uint8)
    found = reliability(probabilities, labels, bins=2)
    assert [(row["images"], row["accuracy"]) for row in found["bins"]] == [(4, 0.25), (4, 0.75)]
    assert found["ece"] == pytest.approx((0.15 + 0.05) / 2)


def two_classes(*confidences: float) -> np.ndarray:
    """Returns probabilities of two classes, given those of the first."""
    return np.stack([np.array(confidences), 1 - np.array(confidences)], axis=-1)


def test_a_calibrated_model():
    probabilities, labels = (
        two_classes(*[0.8] * 10, *[0.6] * 5),
        np.array([0] * 8 + [1] * 2 + [0] * 3 + [1] * 2),
    )
    found = reliability(probabilities, labels)
    assert found["ece"] == pytest.approx(0, abs=1e-12)
    filled = [row for row in found["bins"] if row["images"]]
    assert [(row["images"], row["confidence"], row["accuracy"]) for row in filled] == [
        (5, pytest.approx(0.6), 0.6),
        (10, pytest.approx(0.8), 0.8),
    ]


def test_an_overconfident_model():
    """Half of the predictions at 0.9 are right, 0.4 too few; a quarter of all has a confidence of 1."""
    probabilities = two_classes(*[0.9] * 12, *[1.0] * 4)
    labels = np.array([0, 1] * 6 + [0] * 4)
    assert reliability(probabilities, labels)["ece"] == pytest.approx(0.75 * 0.4)


def test_errors_of_both_signs_do_not_cancel_between_bins():
    probabilities, labels = two_classes(*[0.7] * 10, *[0.9] * 10), np.array([0] * 9 + [1] + [0] * 7 + [1] * 3)
    assert reliability(probabilities, labels, bins=10)["ece"] == pytest.approx(0.2)
    assert reliability(probabilities, labels, bins=1)["ece"] == pytest.approx(0)


def test_the_bins_cover_everything_once():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 500)
    labels = rng.integers(0, 3, 500)
    rows = reliability(probabilities, labels, bins=7)["bins"]
    assert sum(row["images"] for row in rows) == 500
    assert [row["low"] for row in rows[1:]] == [row["high"] for row in rows[:-1]]
    assert (rows[0]["low"], rows[-1]["high"]) == (0, 1)
    for row in rows:
        assert (row["confidence"] is None) == (row["accuracy"] is None) == (row["images"] == 0)
        if row["images"]:
            assert row["low"] < row["confidence"] <= row["high"]


@pytest.mark.parametrize(("confidence", "index"), [(1.0, 4), (0.6, 2), (0.61, 3), (0.8, 3)])
def test_a_border_belongs_to_the_lower_bin(confidence, index):
    rows = reliability(two_classes(confidence), np.array([0]), bins=5)["bins"]
    assert [place for place, row in enumerate(rows) if row["images"]] == [index]
