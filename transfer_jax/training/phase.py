"""One phase, or a part of it between two moves of the cut, from its labels to its last step."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax

from transfer_jax.freezing.adapters import Adapters
from transfer_jax.freezing.labels import partition, trainable_blocks
from transfer_jax.freezing.rates import Rates
from transfer_jax.models.functional import Arrays, block_of, with_training
from transfer_jax.report.progress import Progress
from transfer_jax.training.compile import Compiled, compile_function
from transfer_jax.training.evaluate import predict
from transfer_jax.training.inputs import Inputs, phase_inputs
from transfer_jax.training.measure import make_measure, make_plasticity
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.parts import PhaseParts
from transfer_jax.training.run import Run
from transfer_jax.training.state import TrainState, carry
from transfer_jax.training.step import (
    Forward,
    StepOptions,
    make_eval_step,
    make_gradients,
    make_train_step,
)


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a phase, or a part of it, was when it ended.

    Attributes:
        parts: The phase.
        state: Its last state.
    """

    parts: PhaseParts
    state: TrainState


@dataclasses.dataclass(frozen=True)
class Fresh:
    """A phase before its first step.

    Attributes:
        state: What will change.
        frozen: All other arrays of the model.
        optimizer: Its optimizer.
    """

    state: TrainState
    frozen: Arrays
    optimizer: optax.GradientTransformationExtraArgs


def fresh_state(run: Run, parts: PhaseParts, arrays: Arrays) -> Fresh:
    """Splits all arrays of the model as a phase starts, the factors of its low-rank updates added."""
    seed = run.config.seed + parts.index
    params = {path: arrays[path] for path in run.params} | parts.adapters.initial(arrays, seed)
    trainable, frozen = partition(params, parts.labels)
    stats = {path: arrays[path] for path in parts.stats}
    fixed = {path: arrays[path] for path in arrays if path not in params and path not in stats}
    optimizer = make_optimizer(parts.phase, parts.labels)
    state = TrainState.create(trainable, stats, optimizer, ema=run.config.ema_decay > 0, seed=seed)
    return Fresh(state, {**frozen, **fixed}, optimizer)


class PhaseTrainer:
    """A phase, compiled and fed.

    Args:
        run: The run.
        parts: The phase.
        arrays: All arrays of the model as it starts.
        progress: Where extraction reports to.
        ended: The phase before, or this one at another cut; what of its state goes on is said by `carry`.
        began: What the phase changes as it was at its start, for a phase that interpolates.
    """

    def __init__(
        self,
        run: Run,
        parts: PhaseParts,
        arrays: Arrays,
        progress: Progress,
        ended: Ended | None = None,
        began: Arrays | None = None,
    ) -> None:
        phase, config = parts.phase, run.config
        self.parts = parts
        seed = config.seed + parts.index
        self.inputs: Inputs = phase_inputs(run, phase, parts.boundary, arrays, seed, progress)
        fresh = fresh_state(run, parts, arrays)
        self.frozen = fresh.frozen
        self.state = fresh.state if ended is None else _going_on(fresh.state, parts, ended)
        self.rates: Rates = {}
        self.block_rates: dict[str, float] = {}
        self.images = np.zeros(0, np.int32)

        forward = Forward(
            graphdef=with_training(run.graphdef, arrays, trainable_blocks(parts.labels), norm=phase.norm),
            start=self.inputs.start,
            preprocessing=run.preprocessing,
            dtype=run.dtype,
            adapters=parts.adapters,
        )
        mixes = phase.augment and self.inputs.start is None
        options = StepOptions(
            class_weights=run.class_weights(),
            label_smoothing=config.label_smoothing,
            mixup=config.augmentation.mixup if mixes else 0.0,
            cutmix=config.augmentation.cutmix if mixes else 0.0,
            accumulate=config.accumulate,
            ema_decay=config.ema_decay,
            l2_sp=phase.l2_sp,
            l2_head=phase.l2_head,
            feature_brightness=phase.feature_brightness,
        )
        self._run = run
        self._began = began or {}
        self._forward = forward
        self._names = run.train.names
        self._train_function = make_train_step(forward, fresh.optimizer, options)
        gradients = make_gradients(forward, dataclasses.replace(options, accumulate=1))
        self._measure_function = make_measure(gradients, fresh.optimizer)
        self._plasticity_function = make_plasticity(forward, trainable_blocks(parts.labels))
        self._compiled: dict[str, Compiled] = {}
        self._samples: dict[int, dict[str, np.ndarray]] = {}
        self.optimizer_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state.opt_state))

    def ended(self) -> Ended:
        """What goes on from here."""
        return Ended(self.parts, self.state)

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling so far."""
        return self.inputs.compile_seconds + sum(each.seconds for each in self._compiled.values())

    @property
    def step_flops(self) -> float | None:
        """Floating-point operations of a training step, once compiled."""
        return self._compiled["step"].flops if "step" in self._compiled else None

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
    ) -> Iterator[dict[str, float]]:
        """Trains from step `first` to the end of the phase, and yields the metrics of each step.

        Args:
            batches: The training batches, from that step on.
            first: The step to begin with.
            multipliers: From a step to what scales the rates of tensors in it, by path.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite; names the step and the images of its batch.
        """
        for step in range(first, self.parts.steps):
            yield self.step(next(batches), self.parts.rates(step, multipliers(step)))

    def step(self, batch: Mapping[str, Any], rates: Rates) -> dict[str, float]:
        """Takes one step, and returns its metrics; errors are those of `train`."""
        self.rates, self.block_rates = rates, self._of_blocks(rates)
        self.images = np.asarray(batch["index"])
        anchor = self._pretrained() if self.parts.phase.l2_sp else {}
        arguments = (self.state, self.frozen, _inputs(batch), rates, anchor)
        run = self._compile("step", self._train_function, *arguments, donate=(0,))
        self.state, metrics = run(*arguments)
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not np.isfinite(metrics["loss"]):
            images = ", ".join(str(self._names[index]) for index in batch["index"][:8])
            more = " …" if len(batch["index"]) > 8 else ""
            raise NonFiniteLossError(
                f"the loss is {metrics['loss']} at step {int(self.state.step) - 1} of phase "
                f"{self.parts.phase.name!r}; its batch: {images}{more}. "
                "Try a lower learning rate or clip_norm."
            )
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

    def _pretrained(self) -> Arrays:
        """The arrays that the run began with, of what trains."""
        return {path: self._run.arrays[path] for path in self.state.trainable if path in self._run.arrays}

    def measure(self, rates: Rates, batches: int) -> dict[str, Any]:
        """The statistics of `measure.STATISTICS` on the first batches of the phase; leaves no trace."""
        arguments = (self.state, self.frozen, self._sample(batches), rates, self._pretrained())
        return jax.device_get(
            self._compile(f"measure {batches}", self._measure_function, *arguments)(*arguments)
        )

    def plasticity(self) -> dict[str, float]:
        """How far each block's activations are from the pretrained ones; see `make_plasticity`."""
        arrays = {**self.frozen, **self.state.trainable, **self.state.stats}
        reference = {path: self._run.arrays.get(path, array) for path, array in arrays.items()}
        batch = {name: values[0] for name, values in self._sample(1).items()}
        run = self._compile("plasticity", self._plasticity_function, arrays, reference, batch)
        return {name: float(value) for name, value in jax.device_get(run(arrays, reference, batch)).items()}

    def predict(self) -> np.ndarray:
        """Probabilities `(images, classes)` of the held-out images."""
        arrays = self.evaluated_arrays()
        forward = dataclasses.replace(self._forward, graphdef=self._run.graphdef, adapters=Adapters())
        first = next(iter(self.inputs.evaluate()))
        inputs = {name: first[name] for name in ("image", "features") if name in first}
        return predict(
            self._compile("evaluate", make_eval_step(forward), arrays, inputs), arrays, self.inputs.evaluate()
        )

    def _sample(self, count: int) -> dict[str, np.ndarray]:
        """The first batches of the phase, stacked."""
        if count not in self._samples:
            batches = [_inputs(batch) for batch in itertools.islice(iter(self.inputs.train), count)]
            self._samples[count] = {name: np.stack([each[name] for each in batches]) for name in batches[0]}
        return self._samples[count]

    def _compile(self, name: str, function: Any, *args: Any, donate: tuple[int, ...] = ()) -> Compiled:
        if name not in self._compiled:
            self._compiled[name] = compile_function(function, *args, donate=donate)
        return self._compiled[name]


def _going_on(state: TrainState, parts: PhaseParts, ended: Ended) -> TrainState:
    """A fresh state with what goes on of the one that ended."""
    now, before = parts.phase, ended.parts.phase
    inside = parts.index == ended.parts.index
    same = (now.optimizer, now.momentum) == (before.optimizer, before.momentum)
    state = carry(ended.state, state, moments=same and (inside or now.moments == "carry"))
    return dataclasses.replace(state, step=ended.state.step) if inside else state


def _inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: batch[name] for name in ("image", "features", "label", "weight") if name in batch}
