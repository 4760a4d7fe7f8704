"""The cost of a schedule from the operations of its phases, and measurements of few of them.

Compilation takes most of the time of an estimate. So one step is compiled and timed, the steps that are
small, and one frozen prefix. The steps of all other phases are only traced. Their seconds are proportional
to their work: the multiply-adds of convolutions and matrix products, and the bytes of their operands and
results. The blocks without gradients have a rate of their own.
"""

import concurrent.futures
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from transfer_jax.data.readers import Readers
from transfer_jax.features import make_prefix
from transfer_jax.models import PRE_LOGITS
from transfer_jax.nn.flops import jaxpr_equations, jaxpr_multiply_adds, jaxpr_operand_bytes
from transfer_jax.planning.phase_cost import PhaseCost, new_rows, number_of_validations
from transfer_jax.planning.reading_speed import reading_speed
from transfer_jax.planning.step_timing import StepTime, random_batch, time_step
from transfer_jax.report.progress import Progress
from transfer_jax.training.background_compile import step_shapes
from transfer_jax.training.cache_choice import Caching
from transfer_jax.training.compile import Compiled
from transfer_jax.training.feature_extractor import EXTRACTION_BATCH, compile_prefix
from transfer_jax.training.gradient_statistics import STATISTIC_BATCHES
from transfer_jax.training.input_shapes import input_shapes
from transfer_jax.training.phase_data import tier_of, training_fetch
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.run import Run

_MULTIPLY_ADDS_PER_BYTE = 16
"""Multiply-adds that take as long as a byte of an operand or a result. Fitted to steps of EfficientNet-Lite0
on two CPU cores (`benchmarks/boundaries.py`), and as good for ViT-S/16; see docs/cost.md."""
_SMALL = 0.2
"""Steps with at most this part of the largest step's equations are compiled, and those of a head on cached
features: they take little time."""
_REPRESENTATIVE = 0.1
"""Least work with gradients of the step that stands for the others, relative to the most work of a step."""
_STEP_SECONDS, _STEP_BLOCKS = 0.5, 2


@dataclasses.dataclass(frozen=True)
class _Work:
    """The work of a program.

    Attributes:
        multiply_adds: Multiply-adds of its convolutions and matrix products.
        amount: These, and the bytes that are read and written, in multiply-adds.
        equations: Number of operations in its text, to which the compile time is proportional.
    """

    multiply_adds: int
    amount: float
    equations: int

    @classmethod
    def of(cls, function: Callable[..., Any], *args: Any) -> "_Work":
        """Traces a function. Nothing is compiled."""
        jaxpr = jax.make_jaxpr(function)(*args).jaxpr
        adds = jaxpr_multiply_adds(jaxpr)
        amount = adds + _MULTIPLY_ADDS_PER_BYTE * jaxpr_operand_bytes(jaxpr)
        return cls(adds, amount, jaxpr_equations(jaxpr))


@dataclasses.dataclass(frozen=True)
class _Traced:
    """A phase whose step is traced.

    Attributes:
        parts: The phase.
        caching: Its boundary of cached features.
        rows: Number of rows of features to compute.
        step: Work of a training step.
        below: Work of the blocks without gradients in a step; 0 on cached features.
        optimizer_bytes: Size of the optimizer state in bytes.
    """

    parts: PhaseSplit
    caching: Caching
    rows: int
    step: _Work
    below: float
    optimizer_bytes: int


@dataclasses.dataclass(frozen=True)
class _PrefixTime:
    """The time of a frozen prefix.

    Attributes:
        alone: Seconds for a unit of work, one batch at a time as in a step.
        together: The same, with as many batches at a time as an extraction has threads.
        compile_seconds: Seconds to compile it.
        equations: Number of operations in its text.
    """

    alone: float
    together: float
    compile_seconds: float
    equations: int


class _Estimator:
    """The measurements and counts of a run from which its phases are estimated."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._on_cpu = jax.default_backend() == "cpu"
        phases = [run.parts(index) for index in range(len(run.config.schedule.phases))]
        progress.start("estimating phases", 2 * len(phases))
        computed: set[tuple] = set()
        self._traced: list[_Traced] = []
        for parts in phases:
            caching = run.caching(parts.phase, parts.boundary)
            rows = new_rows(run, caching, phases[: parts.index + 1], computed)
            self._traced.append(self._trace(parts, caching, rows))
            progress.advance(1)
        self._prefix = self._timed_prefix()
        self._reference = _reference(self._traced)
        small = _SMALL * max(each.step.equations for each in self._traced)
        self._steps: dict[int, StepTime] = {}
        for each in self._traced:
            head_alone = each.caching.boundary == PRE_LOGITS
            if each is self._reference or head_alone or each.step.equations <= small:
                at = run.at(each.parts.index)
                self._steps[each.parts.index] = time_step(at, each.parts, _STEP_SECONDS, _STEP_BLOCKS)
            progress.advance(1)
        progress.finish()

    def costs(self) -> tuple[PhaseCost, ...]:
        """Returns the cost of each phase."""
        return tuple(map(self._cost, self._traced))

    def _trace(self, parts: PhaseSplit, caching: Caching, rows: int) -> _Traced:
        run = self._run.at(parts.index)
        programs = PhasePrograms(run, parts)
        arguments = step_shapes(run, parts, programs)
        below = 0.0
        if programs.forward.prefix is not None and caching.boundary is None:
            below = self._forward(programs.forward.prefix).amount * run.batch_size / EXTRACTION_BATCH
        return _Traced(
            parts=parts,
            caching=caching,
            rows=rows,
            step=_Work.of(programs.functions["step"], *arguments),
            below=below,
            optimizer_bytes=sum(_bytes(leaf) for leaf in jax.tree.leaves(arguments[0].opt_state)),
        )

    @functools.cache  # noqa: B019 - it lives as long as the estimate
    def _forward(self, boundary: str) -> _Work:
        """Returns the work of the blocks up to a boundary on `EXTRACTION_BATCH` images, without gradients."""
        run = self._run
        prefix = make_prefix(run.graphdef, boundary, run.preprocessing, run.prefix_dtype)
        return _Work.of(prefix, jax.eval_shape(dict, run.arrays), input_shapes(run, EXTRACTION_BATCH))

    def _timed_prefix(self) -> _PrefixTime | None:
        """Compiles and times the prefix whose extraction has the most work; None if no phase has one."""
        cached = [each for each in self._traced if each.caching.boundary is not None]
        if not cached:
            return None

        def extraction(each: _Traced) -> float:
            return each.rows * self._forward(str(each.caching.boundary)).amount

        most = max(cached, key=extraction)
        boundary, run = str(most.caching.boundary), self._run.at(most.parts.index)
        local = run.strategy.local()
        arrays, count = local.place(run.arrays), EXTRACTION_BATCH * local.count
        compiled = compile_prefix(run, boundary, arrays)
        batch = local.batch(random_batch(input_shapes(run, count), 1))

        def once(_: int = 0) -> None:
            jax.block_until_ready(compiled(arrays, batch))

        once()
        alone = min(_seconds(once) for _ in range(2))
        work = self._forward(boundary)
        threads = self._readers(most).threads if self._on_cpu else 1
        together = alone
        if threads > 1:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                together = _seconds(lambda: list(pool.map(once, range(threads)))) / threads
        amount = work.amount * local.count
        return _PrefixTime(alone / amount, min(alone, together) / amount, compiled.seconds, work.equations)

    def _readers(self, each: _Traced) -> Readers:
        return self._run.readers(training_fetch(self._run, each.parts.phase), each.caching.rows)

    @functools.cached_property
    def _rates(self) -> tuple[float, float]:
        """Seconds for a unit of work, of blocks without gradients and of the other work of steps."""
        reference = self._reference
        seconds = self._steps[reference.parts.index].seconds
        mean = seconds / max(reference.step.amount, 1)
        if self._prefix is None:
            return mean, mean
        above = seconds - reference.below * self._prefix.alone
        rest = reference.step.amount - reference.below
        # The measurements of a busy machine may contradict each other.
        return self._prefix.alone, above / rest if above > seconds / 5 and rest > 0 else mean

    @functools.cache  # noqa: B019
    def _reading(self, augment: bool) -> float:
        """Returns the images per second that are read."""
        phases = (each.parts.phase for each in self._traced)
        return reading_speed(self._run, next(phase for phase in phases if phase.augment == augment))

    def _with_reading(self, seconds: float, images: int, augment: bool) -> float:
        """Returns the seconds of work on images that are read at the same time.

        On a CPU the same cores do both.
        """
        reading = images / self._reading(augment)
        return seconds + reading if self._on_cpu else max(seconds, reading)

    def _cost(self, each: _Traced) -> PhaseCost:
        run, parts, caching = self._run, each.parts, each.caching
        phase, cached = parts.phase, caching.boundary is not None
        below, above = self._rates
        timed = self._steps.get(parts.index)
        computing = timed.seconds if timed else each.below * below + (each.step.amount - each.below) * above
        step = computing if cached else self._with_reading(computing, run.batch_size, phase.augment)
        measuring = STATISTIC_BATCHES * computing if phase.statistic != "none" else 0.0
        validations = number_of_validations(run, phase)
        compiled = timed.compiled if timed else None
        return PhaseCost(
            name=phase.name,
            measured=timed is not None,
            boundary=caching.boundary,
            reason=caching.reason,
            tier=tier_of(run, caching.bytes) if cached else None,
            cache_bytes=caching.bytes if cached else 0,
            rows=each.rows,
            break_even=each.rows / len(run.train) if cached else None,
            step_flops=2 * each.step.multiply_adds,
            step_bytes=PhaseCost.traffic(compiled) if compiled else None,
            peak_bytes=compiled.peak_bytes if compiled else None,
            optimizer_bytes=each.optimizer_bytes,
            programs=2 + cached + (phase.statistic != "none"),
            compile_seconds=self._compile_seconds(each, compiled),
            extract_seconds=self._extract_seconds(each),
            train_seconds=parts.steps * step + phase.epochs * measuring,
            images_needed=None if cached else run.batch_size / computing,
            images_read=None if cached else self._reading(phase.augment),
            validations=validations,
            validate_seconds=validations * self._validation_seconds(each, computing),
        )

    def _compile_seconds(self, each: _Traced, compiled: Compiled | None) -> float:
        reference = self._steps[self._reference.parts.index].compiled.seconds
        share = each.step.equations / self._reference.step.equations
        seconds = compiled.seconds if compiled else reference * share
        if each.caching.boundary is not None and self._prefix is not None:
            equations = self._forward(each.caching.boundary).equations
            seconds += self._prefix.compile_seconds * equations / self._prefix.equations
        return seconds

    def _extract_seconds(self, each: _Traced) -> float:
        if each.caching.boundary is None or not each.rows:
            return 0.0
        assert self._prefix is not None
        amount = self._forward(each.caching.boundary).amount * each.rows / EXTRACTION_BATCH
        return self._with_reading(amount * self._prefix.together, each.rows, each.parts.phase.augment)

    def _validation_seconds(self, each: _Traced, computing: float) -> float:
        """Returns the seconds of scoring the validation images once."""
        run = self._run
        batches = math.ceil(len(run.evaluation) / run.batch_size)
        if each.caching.boundary is not None:
            return batches * computing / 3  # A step is a forward pass, and a backward pass of twice its work.
        images = batches * run.batch_size
        amount = self._forward(PRE_LOGITS).amount * images / EXTRACTION_BATCH
        return self._with_reading(amount * self._rates[0], images, each.parts.phase.augment)


def operation_costs(run: Run, progress: Progress) -> tuple[PhaseCost, ...]:
    """Estimates the cost of each phase from its operations; see `estimate_costs`."""
    return _Estimator(run, progress).costs()


def _reference(traced: list[_Traced]) -> _Traced:
    """Returns the phase whose step stands for the others: the smallest one with enough work."""
    most = max(each.step.amount - each.below for each in traced)
    enough = [each for each in traced if each.step.amount - each.below >= _REPRESENTATIVE * most]
    return min(enough, key=lambda each: each.step.equations)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _bytes(shape: Any) -> int:
    return int(np.prod(shape.shape)) * shape.dtype.itemsize
