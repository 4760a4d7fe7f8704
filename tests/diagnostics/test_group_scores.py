import numpy as np
import pytest

from transfer_jax.diagnostics.group_scores import group_scores


def test_scores_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 0, 1])
    predicted = np.array([0, 0, 1, 1, 1, 1, 1])
    groups = np.array(["mono", "mono", "mono", "mono", "poly", "poly", "poly"])
    found = group_scores(predicted, labels, groups)
    assert found == {
        "mono": {"images": 4, "accuracy": 0.75, "balanced_accuracy": pytest.approx((2 / 3 + 1) / 2)},
        "poly": {
            "images": 3,
            "accuracy": pytest.approx(2 / 3),
            "balanced_accuracy": pytest.approx((0 + 1) / 2),
        },
    }


def test_groups_add_up():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, (2, 200))
    groups = rng.choice(["a", "b", "c"], 200)
    found = group_scores(predicted, labels, groups)
    assert sum(each["images"] for each in found.values()) == 200
    right = sum(each["images"] * each["accuracy"] for each in found.values())
    assert right == pytest.approx((labels == predicted).sum())


@pytest.mark.filterwarnings("error")
def test_a_group_of_one_class():
    found = group_scores(np.array([0, 1]), np.array([0, 0]), np.array(["only", "only"]))
    assert found["only"]["balanced_accuracy"] == 0.5
