"""Training of one phase, or of the part of a phase between two changes of the frozen depth."""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transfer_jax.distributed.agreement import FlagAgreement
from transfer_jax.freezing.learning_rates import Rates
from transfer_jax.freezing.trees import partition
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.models.paths import block_of
from transfer_jax.nn.int8 import Int8Kernel
from transfer_jax.report.progress import Progress
from transfer_jax.tasks import SingleLabel
from transfer_jax.tasks.top_predictions import keeps_all
from transfer_jax.training.evaluation import outputs, predict_top
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.int8_prefix import calibrate
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.phase_data import PhaseData, make_phase_data
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.regularizers import keep_largest_inputs
from transfer_jax.training.run import Part, Run
from transfer_jax.training.state import TrainState, carry

_DISPATCHED_AHEAD = 2
"""Steps that are dispatched to the devices before the metrics of one are read."""


class NonFiniteLossError(ArithmeticError):
    """The loss is NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class PhaseEnd:
    """The end of a phase, or of a part of it, from which the next one continues.

    Attributes:
        parts: The phase.
        state: Its last state.
    """

    parts: PhaseSplit
    state: TrainState


def fresh_state(run: Run, parts: PhaseSplit, arrays: Arrays) -> tuple[TrainState, Arrays]:
    """Returns the state of a phase before its first step, and all other arrays of the model.

    Args:
        run: The run.
        parts: The phase.
        arrays: All arrays of the model at the start of the phase.
    """
    seed, run = run.config.seed + parts.index, run.at(parts.index)
    arrays = {**run.arrays, **arrays}
    params = {path: arrays[path] for path in run.params}
    if parts.phase.keep < 1:
        params = keep_largest_inputs(params, parts.phase.keep)
    trainable, frozen = partition(params, parts.labels)
    stats = {path: arrays[path] for path in parts.stats}
    fixed = {path: arrays[path] for path in arrays if path not in params and path not in stats}
    optimizer = make_optimizer(parts.phase, parts.labels)
    state = TrainState.create(trainable, optimizer, stats, ema=run.config.ema_decay > 0, seed=seed)
    return run.strategy.place((state, {**frozen, **fixed}))


@dataclasses.dataclass(frozen=True)
class _Dispatched:
    """A step that was dispatched to the devices.

    Attributes:
        step: Number of the step in the phase.
        metrics: Metrics of the step, on the devices.
        rates: Learning rates of the step.
        images: Positions of the images of its batch, `(images,)`.
    """

    step: int
    metrics: Mapping[str, jax.Array]
    rates: Rates
    images: np.ndarray


class PhaseTrainer:
    """The data, the compiled programs and the state of a phase that trains.

    Args:
        run: The run.
        parts: The phase.
        arrays: All arrays of the model at the start of the phase, or of this part of it.
        progress: Receives the progress of the feature extraction.
        previous: The end of the phase before, or of this phase at another frozen depth. See `carry` for
            what is kept of its state. None starts with a fresh state.
        initial: The arrays that the phase changes, as they were at its start; needed only by a phase that
            interpolates.

    Attributes:
        data: The phase's data.
        programs: The phase's compiled functions.
        state: The state after the last dispatched step.
        frozen: All arrays of the model that are not in the state.
        rates: The learning rates of the step whose metrics were read last.
        block_rates: The same by block.
        images: Positions of the images of that step's batch.
        optimizer_bytes: Size of the optimizer state.
        wait_seconds: Seconds that steps have waited for their batches.
        unread: Number of dispatched steps whose metrics `train` has not yet yielded.
    """

    def __init__(
        self,
        run: Run,
        parts: PhaseSplit,
        arrays: Arrays,
        progress: Progress,
        previous: PhaseEnd | None = None,
        initial: Arrays | None = None,
    ) -> None:
        self.run = run = run.at(parts.index)
        self.parts = parts
        arrays = {**run.arrays, **arrays}
        seed = run.config.seed + parts.index
        self.data: PhaseData = make_phase_data(run, parts.phase, parts.boundary, arrays, seed, progress)
        state, self.frozen = fresh_state(run, parts, arrays)
        self.state = state if previous is None else _carried_state(state, parts, previous)
        self.programs = PhasePrograms(run, parts)
        self._int8 = self._calibrated(arrays, progress)
        self.rates: Rates = {}
        self.block_rates: dict[str, float] = {}
        self.images = np.zeros(0, np.int32)
        self.optimizer_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.state.opt_state))
        self.wait_seconds = 0.0
        self.unread = 0
        self._initial = initial or {}
        self._samples: dict[int, dict[str, np.ndarray]] = {}

    def train(
        self,
        batches: Iterator[Any],
        first: int,
        multipliers: Callable[[int], Mapping[str, float] | None] = lambda step: None,
        agreement: FlagAgreement | None = None,
        needs_state: Callable[[int], bool] = lambda step: True,
    ) -> Iterator[dict[str, float]]:
        """Trains from step `first` to the end of the phase, and yields the metrics of each step.

        The next steps are dispatched before the metrics of one are read, so that the devices do not wait for
        this process. Before a step at which the state is needed, all metrics are read.

        Args:
            batches: The training batches from step `first` on.
            first: The first step.
            multipliers: Maps a step to the factors of the tensors' learning rates, by path.
            agreement: Flags that processes agree on at each step. Once one is raised, all metrics are
                read before the next step is dispatched.
            needs_state: Returns True if the caller uses the state after this many steps of the phase.

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite. The message names the step and the images of
                its batch.
        """
        dispatched: collections.deque[_Dispatched] = collections.deque()
        for step in range(first, self.parts.steps):
            rates = self.parts.rates(step, multipliers(step))
            batch = self._next(batches)
            dispatched.append(self._dispatch(step, batch, rates))
            if agreement is not None:
                agreement.send()
            read_all = needs_state(step + 1) or step + 1 == self.parts.steps
            while dispatched and (read_all or len(dispatched) > _DISPATCHED_AHEAD):
                metrics = self._read(dispatched.popleft())
                if agreement is not None:
                    read_all = any(agreement.receive().values()) or read_all
                self.unread = len(dispatched)
                yield metrics

    def step(self, batch: Mapping[str, Any], rates: Rates) -> dict[str, float]:
        """Takes one step and returns its metrics.

        Raises:
            NonFiniteLossError: As `train`.
        """
        return self._read(self._dispatch(int(self.state.step), batch, rates))

    def _next(self, batches: Iterator[Any]) -> Mapping[str, Any]:
        """Returns the next batch, and counts the time that it took."""
        started = time.monotonic()
        batch = next(batches)
        self.wait_seconds += time.monotonic() - started
        return batch

    def _dispatch(self, step: int, batch: Mapping[str, Any], rates: Rates) -> _Dispatched:
        """Dispatches a step to the devices, without waiting for its result."""
        anchor = self.run.pretrained(self.state.trainable) if self.parts.phase.l2_sp else {}
        inputs = self.run.strategy.batch(self._inputs(batch))
        arguments = (self.state, self.computed_frozen, inputs, rates, anchor)
        self.state, metrics = self.programs.compiled("step", *arguments)(*arguments)
        return _Dispatched(step, metrics, rates, np.asarray(batch["index"]))

    def _read(self, dispatched: _Dispatched) -> dict[str, float]:
        """Waits for a step, and returns its metrics."""
        self.rates, self.images = dispatched.rates, dispatched.images
        self.block_rates = self._block_rates(dispatched.rates)
        metrics = {name: float(value) for name, value in jax.device_get(dispatched.metrics).items()}
        if not np.isfinite(metrics["loss"]):
            images = ", ".join(str(self.run.train.names[index]) for index in dispatched.images[:8])
            more = " …" if len(dispatched.images) > 8 else ""
            raise NonFiniteLossError(
                f"the loss is {metrics['loss']} at step {dispatched.step} of phase "
                f"{self.parts.phase.name!r}; its batch: {images}{more}. "
                "Try a lower learning rate or clip_norm."
            )
        metrics["learning_rate"] = self.block_rates.get("head", max(self.block_rates.values()))
        return metrics

    def _block_rates(self, rates: Rates) -> dict[str, float]:
        """Returns the learning rate of each trainable block, the mean over tensors that have their own."""
        tensors: dict[str, list[float]] = {}
        for path, rate in rates.items():
            if path in self.state.trainable:
                tensors.setdefault(block_of(path), []).append(float(rate))
        blocks = {block: float(rate) for block, rate in rates.items() if block not in self.state.trainable}
        return blocks | {block: sum(each) / len(each) for block, each in tensors.items()}

    def _inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the entries of a batch that a step uses."""
        batch = self.data.complete(batch)
        return {name: batch[name] for name in (*INPUTS, "label", "weight") if name in batch}

    def sample(self, count: int) -> dict[str, np.ndarray]:
        """Returns the first `count` batches of the phase, stacked along a new first axis."""
        if count not in self._samples:
            batches = [self._inputs(batch) for batch in itertools.islice(iter(self.data.train), count)]
            self._samples[count] = jax.tree.map(lambda *rows: np.stack(rows), *batches)
        return self._samples[count]

    def end(self) -> PhaseEnd:
        """Returns the end from which the next phase, or the next part of this one, continues."""
        return PhaseEnd(self.parts, self.state)

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far."""
        return self.data.compile_seconds + self.programs.compile_seconds

    @property
    def computed_frozen(self) -> Mapping[str, Any]:
        """The arrays of the model that are not in the state, with the kernels of a prefix in int8."""
        return {**self.frozen, **self._int8}

    def _calibrated(self, arrays: Arrays, progress: Progress) -> dict[str, Int8Kernel]:
        """Returns the kernels of the frozen prefix in int8; nothing if it is not computed in int8."""
        if (boundary := self.programs.int8_boundary) is None:
            return {}
        found = calibrate(self.run, boundary, self.run.strategy.local().place(arrays))
        progress.log(str(found))
        return self.run.strategy.place(found.kernels)

    def all_arrays(self) -> Arrays:
        """Returns all current arrays of the model, without moving averages."""
        return self._whole({**self.frozen, **self.state.trainable, **self.state.model_state})

    def final_arrays(self) -> Arrays:
        """Returns all arrays at the end of the phase, interpolated with those at its start if it says so."""
        return self._interpolated(self.all_arrays())

    def evaluated_arrays(self) -> Arrays:
        """Returns all arrays of the model to evaluate with: moving averages where there are any."""
        arrays = {**self.frozen, **self.state.averaged(), **self.state.model_state}
        return self._interpolated(self._whole(arrays))

    def _whole(self, arrays: Arrays) -> Arrays:
        """Returns arrays with the sharding of a model's, which that of a training state may differ from."""
        return self.run.strategy.place(arrays)

    def _interpolated(self, arrays: Arrays) -> Arrays:
        weight = self.parts.phase.interpolate
        return {**arrays, **{path: x + weight * (arrays[path] - x) for path, x in self._initial.items()}}

    def restore(self, state: TrainState, frozen: Arrays) -> None:
        """Continues with the arrays of an earlier state of the phase, and with fresh moments.

        Args:
            state: The earlier state, which need not have a state of the optimizer.
            frozen: Frozen arrays that were others at that time.
        """
        optimizer = make_optimizer(self.parts.phase, self.parts.labels)
        fresh = TrainState.create(state.trainable, optimizer, state.model_state)
        fresh = dataclasses.replace(fresh, ema=state.ema, step=self.state.step, seed=self.state.seed)
        self.state = self.run.strategy.place(fresh)
        self.frozen = {**self.frozen, **frozen}

    def predict(self, part: Part = "validation") -> Any:
        """Returns the predictions of the validation, training or test images.

        They are all predictions, `(images, columns)`; or, for one class of many images and classes (see
        `keeps_all`), the most probable classes: the probabilities then stay on the devices.
        """
        task, images = self.run.task, self.run.images(part)
        if task.kind != SingleLabel.kind or keeps_all(len(images), len(task.names)):
            return task.predictions(np.concatenate([*self._outputs(part)]))
        arrays, strategy = {**self.evaluated_arrays(), **self._int8}, self.run.strategy
        batches = _with_labels(self._batches(part), images.labels, strategy.rows(self.run.batch_size))
        first, rest = _first(batches)
        inputs = {name: first[name] for name in (*INPUTS, "label") if name in first}
        top = self.programs.compiled("top", arrays, strategy.batch(inputs))
        return predict_top(lambda arrays, batch: top(arrays, strategy.batch(batch)), arrays, rest)

    def all_predictions(self, part: Part) -> Iterator[np.ndarray]:
        """Yields all predictions of one batch of images after the other, `(batch, columns)`, in order."""
        return map(self.run.task.predictions, self._outputs(part))

    def _outputs(self, part: Part) -> Iterator[np.ndarray]:
        """Yields the outputs of the head for one batch of images after the other."""
        arrays, strategy = {**self.evaluated_arrays(), **self._int8}, self.run.strategy
        first, batches = _first(self._batches(part))
        inputs = strategy.batch({name: first[name] for name in INPUTS if name in first})
        evaluate = self.programs.compiled("evaluate", arrays, inputs)
        return outputs(lambda arrays, batch: evaluate(arrays, strategy.batch(batch)), arrays, batches)

    def _batches(self, part: Part) -> Iterable[Mapping[str, Any]]:
        data = self.data
        of_part = {
            "validation": data.evaluate,
            "training": data.evaluate_training,
            "test": data.evaluate_test,
        }
        return of_part[part]()


def _first(batches: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Iterator[Mapping[str, Any]]]:
    """Returns the first batch, and all batches."""
    rest = iter(batches)
    first = next(rest)
    return first, itertools.chain([first], rest)


def _with_labels(
    batches: Iterable[Mapping[str, Any]], labels: np.ndarray, rows: np.ndarray
) -> Iterator[Mapping[str, Any]]:
    """Yields the batches of images in order with the labels of their images.

    Args:
        batches: The batches, whose `mask` is about all rows.
        labels: The labels of all images.
        rows: The rows of a batch that this process reads.
    """
    done = 0
    for batch in batches:
        places = np.minimum(done + rows, len(labels) - 1)
        yield {**batch, "label": labels[places]}
        done += len(batch["mask"])


def _carried_state(state: TrainState, parts: PhaseSplit, previous: PhaseEnd) -> TrainState:
    """Returns a fresh state with the parts of the previous state that are kept."""
    now, before = parts.phase, previous.parts.phase
    same_phase = parts.index == previous.parts.index
    same_optimizer = (now.optimizer, now.momentum) == (before.optimizer, before.momentum)
    moments = same_optimizer and (same_phase or now.moments == "carry")
    state = carry(previous.state, state, moments=moments)
    return dataclasses.replace(state, step=previous.state.step) if same_phase else state
