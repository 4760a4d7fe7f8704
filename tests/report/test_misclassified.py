import json

import numpy as np
import pytest
from PIL import Image

from transfer_jax.report.misclassified import (
    MAX_IMAGES,
    MAX_SIDE,
    has_misclassified,
    write_misclassified,
)
from transfer_jax.report.predictions import Predictions
from transfer_jax.tasks import SingleLabel

CLASSES = ("a", "b", "c")


def predictions(images: int, mistakes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities and labels of images; the first ones are misclassified, the first one worst."""
    labels = np.arange(images) % 3
    probabilities = np.eye(3)[labels]
    for index in range(mistakes):
        truth = 0.05 + index / 100
        probabilities[index] = 0
        probabilities[index, labels[index]] = truth
        probabilities[index, (labels[index] + 1) % 3] = 1 - truth
    return probabilities, labels


@pytest.mark.parametrize(("mistakes", "shown"), [(0, 0), (3, 3), (30, MAX_IMAGES)])
def test_the_worst_ones_are_kept(tmp_path, mistakes, shown):
    probabilities, labels = predictions(40, mistakes)
    loaded = []

    def image(index: int) -> np.ndarray:
        loaded.append(index)
        return np.full((30, 600, 3), index, np.uint8)

    names = [f"{index}.png" for index in range(40)]
    found = Predictions(tuple(names), SingleLabel(CLASSES), labels, probabilities)
    assert not has_misclassified(tmp_path, found)
    write_misclassified(tmp_path, found, image)
    assert has_misclassified(tmp_path, found)
    records = json.loads((tmp_path / "mistakes" / "mistakes.json").read_text())["mistakes"]
    assert loaded == list(range(shown))
    assert [record["name"] for record in records] == names[:shown]
    for index, record in enumerate(records):
        assert (record["label"], record["predicted"]) == (CLASSES[index % 3], CLASSES[(index + 1) % 3])
        assert record["truth"] == pytest.approx(0.05 + index / 100)
        assert record["probability"] == pytest.approx(0.95 - index / 100)
        with Image.open(tmp_path / "mistakes" / record["image"]) as picture:
            assert picture.format == "JPEG"
            assert picture.size == (MAX_SIDE, 10)
            assert np.asarray(picture).mean() == pytest.approx(index, abs=1)


def test_of_equal_mistakes_the_first_comes_first():
    probabilities = np.array([[0.2, 0.8], [0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert SingleLabel(("a", "b")).worst(probabilities, np.array([0, 0, 0, 1])) == [0, 2, 3]


def test_a_missing_image_and_other_predictions_are_noticed(tmp_path):
    probabilities, labels = predictions(6, 3)
    found = Predictions(tuple("abcdef"), SingleLabel(CLASSES), labels, probabilities)
    write_misclassified(tmp_path, found, lambda index: np.zeros((8, 8, 3), np.uint8))
    assert has_misclassified(tmp_path, found)
    assert not has_misclassified(
        tmp_path, Predictions(tuple("uvwxyz"), SingleLabel(CLASSES), labels, probabilities)
    )
    (tmp_path / "mistakes" / "02.jpg").unlink()
    assert not has_misclassified(tmp_path, found)
