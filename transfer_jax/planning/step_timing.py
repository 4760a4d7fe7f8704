"""The time of a compiled training step, measured on the devices of this process."""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.nn.int8 import Int8Kernel
from transfer_jax.training.background_compile import step_shapes
from transfer_jax.training.compile import Compiled
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import fresh_state
from transfer_jax.training.run import Run

_BLOCK_SECONDS = 0.1
"""Steps are dispatched in blocks that take about this long, as in training, and a block is timed."""
_MOST_BLOCKS = 200
_WARM_UP = 2


@dataclasses.dataclass(frozen=True)
class StepTime:
    """The time of a training step.

    Attributes:
        seconds: Median of the seconds of a step.
        spread: Half of the difference between the first and the third quartile, in seconds.
        steps: Number of steps that were timed.
        compiled: The compiled step.
    """

    seconds: float
    spread: float
    steps: int
    compiled: Compiled


def time_step(run: Run, parts: PhaseSplit, seconds: float, least_blocks: int = 5) -> StepTime:
    """Compiles the training step of a phase and times it on random images or features.

    The batch is on the devices before the first step. Learning rates are 0, so that the parameters stay
    finite.

    Args:
        run: The run, with its arrays.
        parts: The phase.
        seconds: Seconds of steps to time.
        least_blocks: Least number of blocks of steps to time.
    """
    programs = PhasePrograms(run, parts)
    shapes = step_shapes(run, parts, programs)
    step = programs.compiled("step", *shapes)
    state, frozen = fresh_state(run, parts, run.arrays)
    # The speed of kernels in int8 does not depend on their values: nothing is calibrated.
    kernels = {path: each for path, each in shapes[1].items() if isinstance(each, Int8Kernel)}
    frozen |= run.strategy.place(jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), kernels))
    batch = run.strategy.batch(random_batch(shapes[2], run.train.task.outputs))
    rates = jax.tree.map(lambda rate: np.float32(0), shapes[3])
    anchor = run.pretrained(state.trainable) if parts.phase.l2_sp else {}

    def block(state: Any, steps: int) -> tuple[Any, float]:
        started = time.perf_counter()
        metrics = None
        for _ in range(steps):
            state, metrics = step(state, frozen, batch, rates, anchor)
        jax.block_until_ready((state, metrics))
        return state, (time.perf_counter() - started) / steps

    state, _ = block(state, 1)
    state, one = block(state, _WARM_UP)
    steps = max(1, math.ceil(_BLOCK_SECONDS / one))
    took: list[float] = []
    while len(took) < least_blocks or (sum(took) * steps < seconds and len(took) < _MOST_BLOCKS):
        state, each = block(state, steps)
        took.append(each)
    low, median, high = np.quantile(took, (0.25, 0.5, 0.75))
    return StepTime(float(median), float(high - low) / 2, len(took) * steps, step)


def random_batch(shapes: dict[str, Any], classes: int) -> dict[str, Any]:
    """Returns a batch of random values.

    Args:
        shapes: Shapes and dtypes of its arrays.
        classes: Number of classes of the labels.
    """
    rng = np.random.default_rng(0)

    def values(path: Any, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[0].key == "label":
            return rng.integers(0, classes, shape.shape).astype(shape.dtype)
        if jnp.issubdtype(shape.dtype, jnp.floating):
            return rng.standard_normal(shape.shape, np.float32).astype(shape.dtype)
        limits = jnp.iinfo(shape.dtype)
        return rng.integers(limits.min, limits.max, shape.shape, endpoint=True).astype(shape.dtype)

    return jax.tree_util.tree_map_with_path(values, shapes)
