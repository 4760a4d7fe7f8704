"""Compiles what the next phase needs while one still trains, so that an unfreeze does not stall."""

import contextlib
import functools
import threading
from typing import Any

import jax

from transfer_jax.distributed import processes
from transfer_jax.training.compile import Compiled
from transfer_jax.training.phase_data import batch_shapes, compile_prefix
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_trainer import fresh_state
from transfer_jax.training.run import Run
from transfer_jax.training.step import INPUTS


class BackgroundCompiler:
    """A thread that compiles.

    Programs are found again by their text (`compile_function`), so nothing is handed over.

    Args:
        run: The run, whose config may forbid it.
    """

    def __init__(self, run: Run) -> None:
        wish = run.config.compile_ahead
        self._wanted = processes.cores() > 2 if wish is None else wish
        self._run = run
        self._thread: threading.Thread | None = None

    def start(self, parts: PhaseSplit) -> None:
        """Begins with a phase."""
        self.wait()
        if self._wanted:
            self._thread = threading.Thread(target=self._compile, args=(parts,))
            self._thread.start()

    def wait(self) -> None:
        """Waits for what was begun."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _compile(self, parts: PhaseSplit) -> None:
        with contextlib.suppress(Exception):  # The phase meets it too when it begins, and says so.
            compile_phase(self._run, parts)


def compile_phase(run: Run, parts: PhaseSplit) -> None:
    """Compiles the prefix, the training step and the evaluation of a phase; computes nothing."""
    programs = PhasePrograms(run, parts)
    if programs.start is not None:
        compile_prefix(run, programs.start, run.strategy.local().place(jax.eval_shape(dict, run.arrays)))
    batch = run.strategy.batch(batch_shapes(run, programs.start))
    _compile_step(run, parts, programs, batch)
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    programs.compiled("evaluate", run.arrays, inputs)


def compiled_step(run: Run, parts: PhaseSplit) -> Compiled:
    """The training step of a phase; the run's arrays may be shapes."""
    programs = PhasePrograms(run, parts)
    return _compile_step(run, parts, programs, run.strategy.batch(batch_shapes(run, programs.start)))


def _compile_step(run: Run, parts: PhaseSplit, programs: PhasePrograms, batch: dict[str, Any]) -> Compiled:
    shapes = jax.eval_shape(functools.partial(fresh_state, run, parts), run.arrays)
    state, frozen = run.strategy.place(shapes)
    scaled = None if parts.phase.statistic == "none" else dict.fromkeys(state.trainable, 1.0)
    anchor = run.pretrained(state.trainable) if parts.phase.l2_sp else {}
    return programs.compiled("step", state, frozen, batch, parts.rates(0, scaled), anchor)
