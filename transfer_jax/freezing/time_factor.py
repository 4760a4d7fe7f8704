"""Learning-rate schedules that are functions of the step: names of Optax, and objects."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from transfer_jax.freezing.object_field import ObjectField, takes
from transfer_jax.freezing.object_program import program_text
from transfer_jax.freezing.object_text import is_transformation, structure
from transfer_jax.freezing.optax_names import from_name, schedule_name
from transfer_jax.freezing.python_object import PythonObject

SHAPES = ("constant", "linear", "cosine", "slanted", "freezeout")
"""The learning-rate schedules of this package."""
_KIND = "learning-rate schedule"
_TABLE = 4096
"""Number of steps whose factors are computed at once."""
_SAMPLES = (*range(256), *(2**power for power in range(9, 21)))
"""Steps whose factors identify a schedule that JAX cannot trace."""


def time_factor(shape: str | PythonObject, step: int) -> float:
    """Returns the factor of a schedule at a step; 1 for a missing object, which only a plan can have.

    Args:
        shape: A schedule that is not one of `SHAPES`.
        step: The step, from 0.

    Raises:
        ValueError: If the factor is negative or not finite.
    """
    if isinstance(shape, PythonObject) and not shape.is_available:
        return 1.0
    table = _table(shape, step // _TABLE)
    factor = float(_function(shape)(step)) if table is None else float(table[step % _TABLE])
    if not (math.isfinite(factor) and factor >= 0):
        raise ValueError(
            f"the {_KIND} {shape} returns {factor} at step {step}; it must be a number of at least 0"
        )
    return factor


def _function(shape: str | PythonObject) -> Callable[..., Any]:
    return from_name(shape)() if isinstance(shape, str) else shape.value


@functools.lru_cache(maxsize=64)
def _table(shape: str | PythonObject, index: int) -> np.ndarray | None:
    """Returns the factors of the steps from `index * _TABLE` on; None if JAX cannot trace the schedule.

    They are computed on the CPU: the steps of a training do not wait for them.
    """
    import jax

    steps = np.arange(index * _TABLE, (index + 1) * _TABLE, dtype=np.int32)
    try:
        place = jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS excludes it.
        place = contextlib.nullcontext()
    with place:
        try:
            factors = jax.jit(jax.vmap(_function(shape)))(steps)
            return np.broadcast_to(np.asarray(factors), steps.shape)
        except Exception:  # The schedule computes with Python or NumPy.
            return None


def _program(value: Any) -> str:
    """Returns the text of the program of a schedule, or its first values if it has none."""
    import jax
    import jax.numpy as jnp

    try:
        return program_text(value, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception:
        return f"{structure(value)}\n{list(_values(value))}"


def _values(schedule: Callable[[int], Any]) -> Any:
    for step in _SAMPLES:
        try:
            yield float(schedule(step))
        except Exception:
            return


SHAPE = ObjectField(
    field="shape",
    kind=_KIND,
    names=SHAPES,
    example="optax.cosine_decay_schedule(init_value=1.0, decay_steps=500)",
    objects="a function of the step",
    full_name=schedule_name,
    suits=lambda value: takes(value, 0) and not is_transformation(value),
    program=_program,
)
"""The field `Phase.shape`."""
