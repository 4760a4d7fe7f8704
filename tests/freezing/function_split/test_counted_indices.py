import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing.function_split.jaxprs import as_function, trace
from transfer_jax.freezing.function_split.program import Program

X = jax.random.normal(jax.random.key(0), (4, 6, 8))
COUNT = np.arange(4)


def program_of(function):
    jaxpr, constants, _ = trace(function, X)
    return Program.of_jaxpr(jaxpr, constants, [None])


def batched(program):
    """The operations that have a batch axis in place of counted indices."""
    numbers = [each.params.get("dimension_numbers") for each in program.equations]
    return [each for each in numbers if getattr(each, "operand_batching_dims", ())]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[jnp.arange(4), x[:, :, 0].argmax(1)],
        lambda x: x[COUNT, x[:, :, 0].argmax(1)],
        lambda x: x[jnp.arange(4)[:, None], jnp.argsort(x[:, :, 0], 1)],
        lambda x: x[jnp.arange(4), x[:, :, 0].argmax(1), x[:, 0].argmax(1)],
        lambda x: x.transpose(1, 0, 2)[x[:, :, 0].argmax(1), jnp.arange(4)],
        lambda x: x.at[jnp.arange(4), x[:, :, 0].argmax(1)].set(0.0),
        lambda x: x.at[jnp.arange(4), x[:, :, 0].argmax(1), 2].add(1.0),
        lambda x: x.at[jnp.arange(4), x[:, :, 0].argmax(1)].get(mode="fill", fill_value=3.0),
    ],
)
def test_counted_indices_become_a_batch_axis(function):
    program = program_of(function)
    assert batched(program)
    run = as_function([*program.inputs, *program.constants], program.outputs, program.equations)
    np.testing.assert_array_equal(run(X, *program.constants.values())[0], function(X))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[jnp.arange(4)[::-1], x[:, :, 0].argmax(1)],
        lambda x: x[jnp.arange(3), x[:3, :, 0].argmax(1)],
        lambda x: x[jnp.arange(4)],
        lambda x: x[:, jnp.arange(4), x[0, :4, 0].argsort()],
        lambda x: x[x[:, 0, 0].argsort(), x[:, :, 0].argmax(1)],
    ],
)
def test_other_indices_stay(function):
    assert not batched(program_of(function))
