import io

import numpy as np
from rich.console import Console

from transfer_jax.commands.runs import scores_table
from transfer_jax.training.evaluation import evaluation_metrics


def test_classes_without_images_have_no_scores():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    scores = evaluation_metrics(probabilities, np.array([0, 1]), ("cat", "dog", "emu"))
    output = io.StringIO()
    Console(file=output, width=200).print(scores_table(scores))
    assert "1 class without images not evaluated" in output.getvalue()
    (line,) = (line for line in output.getvalue().splitlines() if "emu" in line)
    assert line.split() == ["emu", "-", "-", "-", "0"]
