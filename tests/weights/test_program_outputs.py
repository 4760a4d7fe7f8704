import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.tasks import TASKS, MultiLabel, Ordinal, Regression, SingleLabel
from transfer_jax.weights.program_outputs import program_outputs

CASES = (
    SingleLabel(("ant", "bee", "cat")),
    MultiLabel(("ant", "bee", "cat")),
    Regression(("width", "height"), mean=(3.0, -2.0), scale=(0.5, 4.0)),
    Regression(("width",)),
    Ordinal(("low", "middle", "high", "highest")),
)


@pytest.mark.parametrize("task", CASES, ids=lambda task: f"{task.kind} {len(task.names)}")
def test_predictions_are_those_of_the_task(task):
    outputs = np.random.default_rng(0).normal(0, 3, (5, task.outputs)).astype(np.float32)
    found = jax.jit(lambda x: program_outputs(task, x, "predictions"))(outputs)
    np.testing.assert_allclose(found, task.predictions(outputs), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(program_outputs(task, jnp.asarray(outputs), "logits"), outputs)


def test_every_kind_of_task_has_a_case():
    assert {type(task) for task in CASES} == {*TASKS.values()}
