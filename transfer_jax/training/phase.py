"""One phase, from its labels to its last step."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transfer_jax.freezing.labels import FROZEN, boundary, labels, partition, trainable_blocks
from transfer_jax.freezing.schedule import Phase
from transfer_jax.models.functional import Arrays, block_of, with_training
from transfer_jax.report.progress import Progress
from transfer_jax.training.compile import Compiled, compile_function
from transfer_jax.training.evaluate import predict
from transfer_jax.training.inputs import Inputs, phase_inputs
from transfer_jax.training.optimizer import make_optimizer, rates_at
from transfer_jax.training.run import Run
from transfer_jax.training.state import TrainState
from transfer_jax.training.step import Forward, StepOptions, make_eval_step, make_train_step


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class PhaseParts:
    """A phase of a run, split by its labels; no data is read and nothing is compiled yet.

    Attributes:
        phase: The phase.
        index: Its position in the schedule.
        labels: From path to `frozen` or the block.
        boundary: End of its frozen prefix; None if the first block trains.
        stats: Paths of the statistics that it updates.
        steps_per_epoch: Steps in an epoch.
    """

    phase: Phase
    index: int
    labels: Mapping[str, str]
    boundary: str | None
    stats: tuple[str, ...]
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Steps in the phase."""
        return self.phase.epochs * self.steps_per_epoch

    @property
    def changes(self) -> frozenset[str]:
        """Paths of everything that the phase changes."""
        return frozenset(path for path, label in self.labels.items() if label != FROZEN) | {*self.stats}


def phase_parts(run: Run, index: int) -> PhaseParts:
    """Labels and splits a phase of a run's schedule."""
    phase = run.config.schedule.phases[index]
    labelled = labels(run.params, phase.selector, run.block_names)
    training = set(trainable_blocks(labelled))
    stats = set(run.arrays) - set(run.params)
    return PhaseParts(
        phase=phase,
        index=index,
        labels=labelled,
        boundary=boundary(labelled, run.block_names),
        stats=tuple(sorted(path for path in stats if phase.norm == "train" and block_of(path) in training)),
        steps_per_epoch=len(run.train) // run.batch_size,
    )


class PhaseTrainer:
    """A phase, compiled and fed.

    Args:
        run: The run.
        parts: The phase.
        arrays: All arrays of the model as the phase starts.
        progress: Where extraction reports to.
    """

    def __init__(self, run: Run, parts: PhaseParts, arrays: Arrays, progress: Progress) -> None:
        phase, config = parts.phase, run.config
        self.parts = parts
        seed = config.seed + parts.index
        self.inputs: Inputs = phase_inputs(run, phase, parts.boundary, arrays, seed, progress)
        params = {path: arrays[path] for path in run.params}
        trainable, frozen = partition(params, parts.labels)
        stats = {path: arrays[path] for path in parts.stats}
        fixed = {path: arrays[path] for path in arrays if path not in params and path not in stats}
        self.frozen: Arrays = {**frozen, **fixed}
        optimizer = make_optimizer(phase, parts.labels)
        self.state = TrainState.create(trainable, stats, optimizer, ema=config.ema_decay > 0)

        blocks = trainable_blocks(parts.labels)
        forward = Forward(
            graphdef=with_training(run.graphdef, arrays, blocks, norm=phase.norm),
            start=self.inputs.start,
            preprocessing=run.preprocessing,
            dtype=run.dtype,
        )
        mixes = phase.augment and self.inputs.start is None
        options = StepOptions(
            class_weights=run.class_weights(),
            label_smoothing=config.label_smoothing,
            mixup=config.augmentation.mixup if mixes else 0.0,
            cutmix=config.augmentation.cutmix if mixes else 0.0,
            accumulate=config.accumulate,
            ema_decay=config.ema_decay,
            seed=seed,
        )
        self._forward = forward
        self._eval_graphdef = run.graphdef
        self._names = run.train.names
        self._step_function = make_train_step(forward, optimizer, options)
        self._train_step: Compiled | None = None
        self._eval_step: Compiled | None = None
        self.optimizer_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state.opt_state))

    @property
    def compile_seconds(self) -> float:
        """Time spent compiling so far."""
        steps = (self._train_step, self._eval_step)
        return self.inputs.compile_seconds + sum(step.seconds for step in steps if step)

    @property
    def step_flops(self) -> float | None:
        """Floating-point operations of a training step, once compiled."""
        return self._train_step.flops if self._train_step else None

    def all_arrays(self) -> Arrays:
        """All arrays of the model as they are now, moving averages left aside."""
        return {**self.frozen, **self.state.trainable, **self.state.stats}

    def evaluated_arrays(self) -> Arrays:
        """All arrays of the model to evaluate with."""
        return {**self.frozen, **self.state.evaluated()}

    def train(self, batches: Iterator[Any], first: int) -> Iterator[dict[str, float]]:
        """Trains from step `first` to the end of the phase, and yields the metrics of each step.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite; names the step and the images of its batch.
        """
        parts = self.parts
        for step in range(first, parts.steps):
            batch = next(batches)
            rates = rates_at(parts.phase, parts.labels, step, parts.steps)
            inputs = {name: batch[name] for name in ("image", "features", "label") if name in batch}
            if self._train_step is None:
                self._train_step = compile_function(
                    self._step_function, self.state, self.frozen, inputs, rates, donate=(0,)
                )
            self.state, metrics = self._train_step(self.state, self.frozen, inputs, rates)
            metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not np.isfinite(metrics["loss"]):
                images = ", ".join(str(self._names[index]) for index in batch["index"][:8])
                more = " …" if len(batch["index"]) > 8 else ""
                raise NonFiniteLossError(
                    f"the loss is {metrics['loss']} at step {step} of phase {parts.phase.name!r}; "
                    f"its batch: {images}{more}. Try a lower learning rate or clip_norm."
                )
            metrics["learning_rate"] = float(rates.get("head", max(rates.values())))
            yield metrics

    def predict(self) -> np.ndarray:
        """Probabilities `(images, classes)` of the held-out images."""
        arrays = self.evaluated_arrays()
        if self._eval_step is None:
            forward = dataclasses.replace(self._forward, graphdef=self._eval_graphdef)
            first = next(iter(self.inputs.evaluate()))
            inputs = {name: first[name] for name in ("image", "features") if name in first}
            self._eval_step = compile_function(make_eval_step(forward), arrays, inputs)
        return predict(self._eval_step, arrays, self.inputs.evaluate())
