import numpy as np
import pytest
from PIL import Image

from transfer_jax.report.metrics import MetricsLog
from transfer_jax.report.pictures import write_pictures


@pytest.mark.parametrize(("classes", "mistakes"), [(2, 0), (2, 1), (25, 20)])
def test_pictures_are_drawn_and_the_worst_mistakes_are_shown(tmp_path, classes, mistakes):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step, phase in ((5, "head"), (10, "head"), (15, "top")):
        log.write(step, "train", phase=phase, loss=1 / step, accuracy=0.5, learning_rate=1e-3)
        log.write(step, "evaluation", phase=phase, log_loss=0.5, accuracy=0.5)
    labels = np.arange(30) % classes
    truth = np.linspace(0.1, 0.3, 30)  # the probability of the true class, where it is mistaken
    probabilities = np.eye(classes)[labels]
    for index in range(mistakes):
        probabilities[index] = 0
        probabilities[index, labels[index]] = truth[index]
        probabilities[index, (labels[index] + 1) % classes] = 1 - truth[index]
    asked = []

    def image(index: int) -> np.ndarray:
        asked.append(index)
        return np.zeros((8, 8, 3), np.uint8)

    write_pictures(tmp_path, probabilities, labels, [f"class {i}" for i in range(classes)], image)
    assert asked == list(range(min(mistakes, 12)))
    for name in ("curves", "confusion", "mistakes"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width >= 300
            picture.verify()
