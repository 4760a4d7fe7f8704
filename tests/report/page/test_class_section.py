from typing import cast

import numpy as np
import pytest

from transfer_jax.report.class_scores import ClassScores
from transfer_jax.report.page.class_section import MOST_CLASSES, WORST, class_section
from transfer_jax.report.page.elements import Charts, Table, Text
from transfer_jax.tasks import SingleLabel
from transfer_jax.tasks.confusions import Confusions


def scores_of(classes: int, images: int) -> ClassScores:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes - 7, images).astype(np.int32)  # The last seven have no image.
    predicted = np.where(rng.random(images) < 0.5, labels, rng.integers(0, classes, images))
    names = tuple(f"class {place}" for place in range(classes))
    per_class = SingleLabel(names).scores(np.eye(classes)[predicted], labels)["per_class"]
    return ClassScores.of(per_class, Confusions.of(labels, predicted, classes))


def test_all_of_few_classes_are_shown():
    section = class_section(scores_of(MOST_CLASSES, 300))
    text, _, table = section.parts
    assert isinstance(text, Text)
    assert isinstance(table, Table)
    assert text.paragraphs[0].startswith("7 classes have no validation image (class 43, class 44, ")
    assert text.paragraphs[0].endswith("class 47 and 2 more): trained, and not evaluated.")
    assert (section.title, len(table.rows)) == ("Classes", MOST_CLASSES)


def test_the_worst_and_the_most_confused_of_many_classes_are_shown():
    scores = scores_of(400, 3000)
    _, charts, errors, table = class_section(scores).parts
    assert isinstance(charts, Charts)
    assert isinstance(errors, Table)
    assert isinstance(table, Table)
    assert charts.charts[0].title == "Confusion matrix of 40 of 400 classes"
    assert table.caption == "Scores of the 30 of 400 classes with the lowest F1, on validation images"
    f1 = [cast("float", row[3]) for row in table.rows]
    assert f1 == sorted(f1)
    assert len(table.rows) == len(errors.rows) == WORST
    counts = [cast("int", row[2]) for row in errors.rows]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("classes", [400, 4000])
def test_its_size_does_not_depend_on_the_number_of_classes(classes):
    section = class_section(scores_of(classes, 3000))
    assert sum(len(part.rows) for part in section.parts if isinstance(part, Table)) == 2 * WORST
    (charts,) = (part for part in section.parts if isinstance(part, Charts))
    assert len(charts.charts[0].spec["data"]["values"]) == 40 * 40
