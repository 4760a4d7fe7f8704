"""Compilation of the next phase's programs while a phase trains, so that its start does not wait."""

import contextlib
import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.distributed import processes
from transfer_jax.training.compile import Compiled
from transfer_jax.training.feature_extractor import compile_prefix
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.input_shapes import input_shapes
from transfer_jax.training.int8_prefix import int8_shapes
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import fresh_state
from transfer_jax.training.run import Run


class BackgroundCompiler:
    """A thread that compiles a phase.

    Nothing is handed over: `compile_function` finds a program that was compiled before by its text.

    Args:
        run: The run. Its config's `compile_ahead` may forbid it; by default it needs more than two cores.
    """

    def __init__(self, run: Run) -> None:
        configured = run.config.compile_ahead
        self._enabled = processes.cores() > 2 if configured is None else configured
        self._run = run
        self._thread: threading.Thread | None = None

    def start(self, parts: PhaseSplit) -> None:
        """Starts to compile a phase, after the one before is compiled."""
        self.wait()
        if self._enabled:
            self._thread = threading.Thread(target=self._compile, args=(parts,))
            self._thread.start()

    def wait(self) -> None:
        """Waits until the phase that was started is compiled."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _compile(self, parts: PhaseSplit) -> None:
        with contextlib.suppress(Exception):  # The phase raises it too when it starts.
            compile_phase(self._run, parts)


def compile_phase(run: Run, parts: PhaseSplit) -> None:
    """Compiles the prefix, the training step and the evaluation of a phase, and runs none of them."""
    run = run.at(parts.index)
    programs = PhasePrograms(run, parts)
    if programs.start is not None:
        arrays = run.strategy.local().place(jax.eval_shape(dict, run.arrays))
        if run.int8:
            arrays |= run.strategy.local().place(int8_shapes(run, programs.start, arrays))
        compile_prefix(run, programs.start, arrays)
    batch = run.strategy.batch(_batch_shapes(run, programs.start))
    _compile_step(run, parts, programs, batch)
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    arrays = run.arrays
    if programs.int8_boundary is not None:
        kernels = int8_shapes(run, programs.int8_boundary, jax.eval_shape(dict, arrays))
        arrays = {**arrays, **run.strategy.place(kernels)}
    programs.compiled("evaluate", arrays, inputs)


def compiled_step(run: Run, parts: PhaseSplit) -> Compiled:
    """Returns the compiled training step of a phase; the run's arrays may be shapes."""
    programs = PhasePrograms(run, parts)
    return _compile_step(run, parts, programs, run.strategy.batch(_batch_shapes(run, programs.start)))


def step_batch_shapes(run: Run, parts: PhaseSplit) -> dict[str, Any]:
    """Returns the shapes of a batch of the training step of a phase: of images, or of cached features."""
    run = run.at(parts.index)
    return _batch_shapes(run, run.caching(parts.phase, parts.boundary).boundary)


def step_shapes(run: Run, parts: PhaseSplit, programs: PhasePrograms) -> tuple[Any, ...]:
    """Returns the arguments of the training step of a phase, with shapes instead of arrays.

    Args:
        run: The run, whose arrays may be shapes.
        parts: The phase.
        programs: The functions of the phase.
    """
    return _step_arguments(run, parts, programs, run.strategy.batch(_batch_shapes(run, programs.start)))


def _compile_step(run: Run, parts: PhaseSplit, programs: PhasePrograms, batch: dict[str, Any]) -> Compiled:
    return programs.compiled("step", *_step_arguments(run, parts, programs, batch))


def _step_arguments(
    run: Run, parts: PhaseSplit, programs: PhasePrograms, batch: dict[str, Any]
) -> tuple[Any, ...]:
    run = run.at(parts.index)
    shapes = jax.eval_shape(functools.partial(fresh_state, run, parts), run.arrays)
    state, frozen = run.strategy.place(shapes)
    if programs.int8_boundary is not None:
        kernels = int8_shapes(run, programs.int8_boundary, jax.eval_shape(dict, run.arrays))
        frozen = {**frozen, **run.strategy.place(kernels)}
    factors = None if parts.phase.statistic == "none" else dict.fromkeys(state.trainable, 1.0)
    anchor = run.pretrained(state.trainable) if parts.phase.l2_sp else {}
    return state, frozen, batch, parts.rates(0, factors), anchor


def _batch_shapes(run: Run, start: str | None) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a training batch: of features at the boundary `start`, or of images if None."""
    size = run.batch_size
    labels = run.train.labels
    dtype = jax.dtypes.canonicalize_dtype(labels.dtype)
    shapes = {"label": jax.ShapeDtypeStruct((size, *labels.shape[1:]), dtype)}
    if run.train.weights is not None:
        shapes["weight"] = jax.ShapeDtypeStruct((size,), jnp.float32)
    if start is None:
        return {**shapes, **input_shapes(run, size)}
    return {**shapes, **run.row_format(start).column_shapes(size)}
