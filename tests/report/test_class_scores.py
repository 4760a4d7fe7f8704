import numpy as np
import pytest

from transfer_jax.report.class_scores import ClassScores
from transfer_jax.tasks import MultiLabel, SingleLabel
from transfer_jax.tasks.confusions import Confusions

CLASSES = ("ant", "caf\udce9", "b\nc")
LABELS = np.array([0, 0, 1, 1, 1], np.int32)  # The last class has no image.
PROBABILITIES = np.eye(3)[[0, 1, 1, 1, 0]]


@pytest.fixture
def found():
    scores = SingleLabel(CLASSES).scores(PROBABILITIES, LABELS)
    return ClassScores.of(scores["per_class"], Confusions.of_matrix(scores["confusion"]), step=12)


def test_they_are_read_as_written(found, tmp_path):
    found.write(tmp_path / "scores.npz")
    again = ClassScores.read(tmp_path / "scores.npz")
    assert again is not None
    assert again.rows() == SingleLabel(CLASSES).scores(PROBABILITIES, LABELS)["per_class"]
    assert again.step == 12
    assert again.confusions is not None
    np.testing.assert_array_equal(again.confusions.matrix(), found.confusions.matrix())
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_the_worst_ones_are_evaluated(found):
    assert [*found.worst(9)] == ["ant", "caf\udce9"]
    assert found.worst(1)["ant"] == found.rows()["ant"]


def test_those_of_labels_have_no_confusions(tmp_path):
    labels = np.array([[1, 0, 0], [0, 1, 0]], np.uint8)
    per_class = MultiLabel(CLASSES).scores(np.full((2, 3), 0.7), labels)["per_class"]
    ClassScores.of(per_class).write(tmp_path / "scores.npz")
    again = ClassScores.read(tmp_path / "scores.npz")
    assert again is not None
    assert (again.rows(), again.confusions) == (per_class, None)


def test_missing_and_damaged_files(found, tmp_path):
    path = tmp_path / "scores.npz"
    assert ClassScores.read(path) is None
    found.write(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"scores\.npz is damaged"):
        ClassScores.read(path)
