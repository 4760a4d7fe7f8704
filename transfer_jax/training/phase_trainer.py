"""One phase, or a part of it between two moves of the cut, from its labels to its last step."""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.freezing.labels import partition
from transfer_jax.freezing.learning_rates import Rates
from transfer_jax.models.flat_arrays import Arrays, block_of
from transfer_jax.report.progress import Progress
from transfer_jax.training.cka import LEAST_IMAGES, cka
from transfer_jax.training.compile import compile_function
from transfer_jax.training.evaluation import predict
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.phase_data import PhaseData, make_phase_data
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.regularizers import selected
from transfer_jax.training.run import Run
from transfer_jax.training.state import TrainState, carry
from transfer_jax.training.step import INPUTS, WISHES

Wishes = Callable[[], Mapping[str, float]]
_AHEAD = 2
"""Steps that the devices are given before the metrics of one are read."""


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a phase, or a part of it, was when it ended.

    Attributes:
        parts: The phase.
        state: Its last state.
    """

    parts: PhaseSplit
    state: TrainState


def fresh_state(run: Run, parts: PhaseSplit, arrays: Arrays) -> tuple[TrainState, Arrays]:
    """What a phase will change, before its first step, and all other arrays of the model.

    Args:
        run: The run.
        parts: The phase.
        arrays: All arrays of the model as it starts.
    """
    seed = run.config.seed + parts.index
    params = {path: arrays[path] for path in run.params} | parts.adapters.initial(arrays, seed)
    if parts.phase.keep < 1:
        params = selected(params, parts.phase.keep)
    trainable, frozen = partition(params, parts.labels)
    stats = {path: arrays[path] for path in parts.stats}
    fixed = {path: arrays[path] for path in arrays if path not in params and path not in stats}
    optimizer = make_optimizer(parts.phase, parts.labels)
    state = TrainState.create(trainable, stats, optimizer, ema=run.config.ema_decay > 0, seed=seed)
    return run.strategy.place((state, {**frozen, **fixed}))


@dataclasses.dataclass(frozen=True)
class _Taken:
    """A step that the devices were given.

    Attributes:
        step: Its number in the phase.
        metrics: Its metrics, on the devices.
        rates: Its learning rates.
        images: Positions of the images of its batch.
    """

    step: int
    metrics: Mapping[str, jax.Array]
    rates: Rates
    images: np.ndarray


class PhaseTrainer:
    """A phase, compiled and fed.

    Args:
        run: The run.
        parts: The phase.
        arrays: All arrays of the model as it starts.
        progress: Where extraction reports to.
        ended: The phase before, or this one at another cut; what of its state goes on is said by `carry`.
        began: What the phase changes as it was at its start, for a phase that interpolates.

    Attributes:
        inputs: Its data.
        programs: Its compiled functions.
        waited: Seconds that steps have waited for their batches.
        unread: Steps that `train` has begun and whose metrics it has not given yet.
    """

    def __init__(
        self,
        run: Run,
        parts: PhaseSplit,
        arrays: Arrays,
        progress: Progress,
        ended: Ended | None = None,
        began: Arrays | None = None,
    ) -> None:
        self.parts = parts
        seed = run.config.seed + parts.index
        self.inputs: PhaseData = make_phase_data(run, parts.phase, parts.boundary, arrays, seed, progress)
        state, self.frozen = fresh_state(run, parts, arrays)
        self.state = state if ended is None else _going_on(state, parts, ended)
        self.rates: Rates = {}
        self.block_rates: dict[str, float] = {}
        self.images = np.zeros(0, np.int32)
        self.optimizer_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state.opt_state))
        self._run = run
        self._began = began or {}
        self.programs = PhasePrograms(run, parts)
        self.waited = 0.0
        self.unread = 0
        self._samples: dict[int, dict[str, np.ndarray]] = {}

    def ended(self) -> Ended:
        """What goes on from here."""
        return Ended(self.parts, self.state)

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling so far."""
        return self.inputs.compile_seconds + self.programs.compile_seconds

    def all_arrays(self) -> Arrays:
        """All arrays of the model as they are now, moving averages left aside, low-rank updates merged."""
        return self.parts.adapters.merged({**self.frozen, **self.state.trainable, **self.state.stats})

    def final_arrays(self) -> Arrays:
        """All arrays at the end of the phase: as far from its beginning as `interpolate` says."""
        return self._interpolated(self.all_arrays())

    def evaluated_arrays(self) -> Arrays:
        """All arrays of the model to evaluate with."""
        averaged = {**self.frozen, **self.state.evaluated()}
        return self._interpolated(self.parts.adapters.merged(averaged))

    def _interpolated(self, arrays: Arrays) -> Arrays:
        share = self.parts.phase.interpolate
        return {**arrays, **{path: x + share * (arrays[path] - x) for path, x in self._began.items()}}

    def train(
        self,
        batches: Iterator[Any],
        first: int,
        multipliers: Callable[[int], Mapping[str, float] | None] = lambda step: None,
        wishes: Wishes = lambda: {},
        watched: Callable[[int], bool] = lambda step: True,
    ) -> Iterator[dict[str, float]]:
        """Trains from step `first` to the end of the phase, and yields the metrics of each step.

        The devices are given the next steps before the metrics of one are read, so that they need not wait
        for this process. Where the state is looked at, all metrics are read before.

        Args:
            batches: The training batches, from that step on.
            first: The step to begin with.
            multipliers: From a step to what scales the rates of tensors in it, by path.
            wishes: What this process wants, by names of `WISHES`; the metrics say what any of them does. Once
                one wants anything, no step is begun until all metrics are read.
            watched: Whether the state is looked at after so many steps of the phase.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite; names the step and the images of its batch.
        """
        taken: collections.deque[_Taken] = collections.deque()
        for step in range(first, self.parts.steps):
            rates, began = self.parts.rates(step, multipliers(step)), time.monotonic()
            batch = next(batches)
            self.waited += time.monotonic() - began
            taken.append(self._take(step, batch, rates, wishes))
            at_once = watched(step + 1) or step + 1 == self.parts.steps
            while taken and (at_once or len(taken) > _AHEAD):
                metrics = self._read(taken.popleft(), wishes)
                at_once = at_once or any(metrics.get(name) for name in WISHES)
                self.unread = len(taken)
                yield metrics

    def step(self, batch: Mapping[str, Any], rates: Rates) -> dict[str, float]:
        """Takes one step, and returns its metrics; errors are those of `train`."""
        return self._read(self._take(int(self.state.step), batch, rates, lambda: {}), lambda: {})

    def _take(self, step: int, batch: Mapping[str, Any], rates: Rates, wishes: Wishes) -> "_Taken":
        """Gives the devices a step."""
        anchor = self._run.pretrained(self.state.trainable) if self.parts.phase.l2_sp else {}
        inputs = self._inputs(batch)
        if processes.count() > 1:
            count, asked = len(inputs["label"]), wishes()
            inputs |= {name: np.full(count, asked.get(name, 0), np.float32) for name in WISHES}
        inputs = self._run.strategy.batch(inputs)
        arguments = (self.state, self.frozen, inputs, rates, anchor)
        self.state, metrics = self.programs.compiled("step", *arguments)(*arguments)
        return _Taken(step, metrics, rates, np.asarray(batch["index"]))

    def _read(self, taken: "_Taken", wishes: Wishes) -> dict[str, float]:
        """The metrics of a step, once it is over."""
        self.rates, self.block_rates, self.images = taken.rates, self._of_blocks(taken.rates), taken.images
        metrics = {name: float(value) for name, value in jax.device_get(taken.metrics).items()}
        if not np.isfinite(metrics["loss"]):
            images = ", ".join(str(self._run.train.names[index]) for index in taken.images[:8])
            more = " …" if len(taken.images) > 8 else ""
            raise NonFiniteLossError(
                f"the loss is {metrics['loss']} at step {taken.step} of phase "
                f"{self.parts.phase.name!r}; its batch: {images}{more}. "
                "Try a lower learning rate or clip_norm."
            )
        if processes.count() == 1:
            metrics |= wishes()
        metrics["learning_rate"] = self.block_rates.get("head", max(self.block_rates.values()))
        return metrics

    def _of_blocks(self, rates: Rates) -> dict[str, float]:
        """The learning rate of each block that trains; where its tensors have their own, their mean."""
        tensors: dict[str, list[float]] = {}
        for path, rate in rates.items():
            if path in self.state.trainable:
                tensors.setdefault(block_of(path), []).append(float(rate))
        blocks = {block: float(rate) for block, rate in rates.items() if block not in self.state.trainable}
        return blocks | {block: sum(each) / len(each) for block, each in tensors.items()}

    def measure(self, rates: Rates, batches: int) -> dict[str, Any]:
        """The statistics of `measure.STATISTICS` on the first batches of the phase; leaves no trace."""
        reference = self._run.pretrained(self.state.trainable)
        sample = self._run.strategy.batch(self._sample(batches), axis=1)
        arguments = (self.state, self.frozen, sample, rates, reference)
        return jax.device_get(self.programs.compiled("measure", *arguments, variant=batches)(*arguments))

    def plasticity(self) -> dict[str, float]:
        """How far each block's activations are from the pretrained ones; see `make_plasticity`."""
        return {name: float(value) for name, value in self._compared("plasticity").items()}

    def similarity(self) -> dict[str, float]:
        """Linear CKA to the pretrained activations of each block above the frozen prefix, on a few images.

        Both begin with what the prefix gives now. Empty if only the head trains, or if images are too few.
        """
        if self.parts.boundary == self._run.block_names[-1] or self._run.batch_size < LEAST_IMAGES:
            return {}
        return cka(self._compared("similarity"))

    def _compared(self, name: str) -> dict[str, Any]:
        """What a program says of the arrays as they are and as they were, on the first batch of the phase."""
        arrays = self.all_arrays()
        reference = self._run.pretrained(arrays)
        batch = {name: values[0] for name, values in self._sample(1).items()}
        arguments = arrays, reference, self._run.strategy.whole(batch)
        return jax.device_get(self.programs.compiled(name, *arguments)(*arguments))

    def predict(self, *, training: bool = False) -> np.ndarray:
        """Probabilities `(images, classes)` of the held-out images, or of the training images."""
        batches = self.inputs.evaluate_training if training else self.inputs.evaluate
        arrays = self.evaluated_arrays()
        strategy = self._run.strategy
        first = next(iter(batches()))
        inputs = strategy.batch({name: first[name] for name in INPUTS if name in first})
        evaluate = self.programs.compiled("evaluate", arrays, inputs)
        return predict(lambda arrays, batch: evaluate(arrays, strategy.batch(batch)), arrays, batches())

    def exchange_seconds(self) -> float:
        """The time that averaging gradients over all devices takes by itself; 0 on one device."""
        strategy, state = self._run.strategy, self.state
        if strategy.count == 1:
            return 0.0

        def nothing(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Any, key: jax.Array) -> Any:
            return (trainable, {}), stats

        batch = strategy.batch({"label": np.zeros(len(strategy.rows(self._run.batch_size)), np.int32)})
        arguments = state.trainable, state.stats, {}, batch, jax.random.key(0)
        exchange = compile_function(strategy.average(nothing), *arguments, strategy=strategy, batch=3)
        seconds = []
        for _ in range(4):
            began = time.monotonic()
            jax.block_until_ready(exchange(*arguments))
            seconds.append(time.monotonic() - began)
        return min(seconds)

    def _inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What a step is given of a batch."""
        batch = self.inputs.complete(batch)
        return {name: batch[name] for name in (*INPUTS, "label", "weight") if name in batch}

    def _sample(self, count: int) -> dict[str, np.ndarray]:
        """The first batches of the phase, stacked."""
        if count not in self._samples:
            batches = [self._inputs(batch) for batch in itertools.islice(iter(self.inputs.train), count)]
            self._samples[count] = {name: np.stack([each[name] for each in batches]) for name in batches[0]}
        return self._samples[count]


def _going_on(state: TrainState, parts: PhaseSplit, ended: Ended) -> TrainState:
    """A fresh state with what goes on of the one that ended."""
    now, before = parts.phase, ended.parts.phase
    inside = parts.index == ended.parts.index
    same = (now.optimizer, now.momentum) == (before.optimizer, before.momentum)
    state = carry(ended.state, state, moments=same and (inside or now.moments == "carry"))
    return dataclasses.replace(state, step=ended.state.step) if inside else state
