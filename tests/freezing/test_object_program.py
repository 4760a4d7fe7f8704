import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing.object_program import program_text

X = jax.ShapeDtypeStruct((3,), jnp.float32)


def times(factor):
    return lambda x: x * factor


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (times(2.0), lambda y: y * 2.0, True),
        (times(2.0), times(2.5), False),
        (times(np.arange(3.0)), times(np.arange(3.0)), True),
        (times(np.arange(3.0)), times(np.arange(3.0) + 1e-6), False),
        (times(2.0), lambda x: x / 0.5, False),
        (lambda x: jax.nn.relu(x), lambda x: jax.nn.relu(x), True),
        (
            lambda x: x + jax.random.normal(jax.random.key(0), (3,)),
            lambda x: x + jax.random.normal(jax.random.key(1), (3,)),
            False,
        ),
    ],
)
def test_texts_are_equal_for_equal_programs_only(one, other, same):
    assert (program_text(one, X) == program_text(other, X)) == same
    assert "0x" not in program_text(one, X)
