import numpy as np
import pytest
from PIL import Image

from transfer_jax.report.metrics_log import MetricsLog
from transfer_jax.report.run_figures import write_figures


@pytest.mark.parametrize("classes", [2, 25])
def test_figures_are_drawn(tmp_path, classes):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step, phase in ((5, "head"), (10, "head"), (15, "top")):
        log.write(step, "train", phase=phase, loss=1 / step, accuracy=0.5, learning_rate=1e-3)
        log.write(step, "evaluation", phase=phase, log_loss=0.5, accuracy=0.5)
    labels = np.arange(30) % classes
    probabilities = np.eye(classes)[(labels + (np.arange(30) < 5)) % classes]
    write_figures(tmp_path, probabilities, labels, [f"class {i}" for i in range(classes)])
    for name in ("curves", "confusion"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.width >= 300
            picture.verify()
