import io

import numpy as np
from rich.console import Console

from transfer_jax.commands.scores_table import scores_table
from transfer_jax.tasks import SingleLabel


def printed(scores) -> str:
    output = io.StringIO()
    Console(file=output, width=200).print(scores_table(scores))
    return output.getvalue()


def test_classes_without_images_have_no_scores():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    scores = SingleLabel(("cat", "dog", "emu")).scores(probabilities, np.array([0, 1]))
    output = printed(scores)
    assert "1 class without images not evaluated" in output
    (line,) = (line for line in output.splitlines() if "emu" in line)
    assert line.split() == ["emu", "-", "-", "-", "0"]


def test_of_many_classes_the_lowest_scores_are_printed():
    names = tuple(f"class {index}" for index in range(100))
    labels = np.arange(100)
    predicted = np.where(labels % 10 == 3, (labels + 1) % 100, labels)  # Ten classes are wrong.
    output = printed(SingleLabel(tuple(names)).scores(np.eye(100)[predicted], labels))
    assert all(f"class {index} " in output for index in range(3, 100, 10))
    assert "70 more with a higher F1" in output
    assert len(output.splitlines()) < 40
