import json

import numpy as np
import pytest

from transfer_jax.serving.answers import answer
from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel


@pytest.mark.parametrize(
    ("task", "prediction", "top", "expected"),
    [
        (SingleLabel(("a", "b", "c")), [0.2, 0.5, 0.3], 2, ("b", {"b": 0.5, "c": 0.3})),
        (Ordinal(("a", "b", "c")), [0.45, 0.15, 0.4], 0, ("b", {"a": 0.45, "c": 0.4, "b": 0.15})),
        (MultiLabel(("a", "b"), (0.1, 0.9)), [0.2, 0.8], 0, (["a"], {"b": 0.8, "a": 0.2})),
        (MultiLabel(("a", "b")), [0.2, 0.3], 1, ([], {"b": 0.3})),
        (Regression(("size", "age")), [1.5, -2.0], 1, ({"size": 1.5, "age": -2.0}, None)),
    ],
    ids=["single_label", "ordinal", "multi_label", "no_label", "regression"],
)
def test_answers_are_json(task, prediction, top, expected):
    found = answer(task, np.array(prediction), top)
    assert json.loads(json.dumps(found)) == found
    assert (found["predicted"], found.get("probabilities")) == expected
    if expected[1]:
        assert list(found["probabilities"]) == list(expected[1])
