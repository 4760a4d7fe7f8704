"""The split of a phase into frozen and trainable arrays, before anything is read or compiled."""

import dataclasses
import functools
from collections.abc import Mapping

from transfer_jax.freezing.labels import boundary, freeze_first, labels, trainable_blocks
from transfer_jax.freezing.learning_rates import PhaseRates, Rates
from transfer_jax.freezing.lora import LoraUpdates
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.freezing.selectors import SelectorError, parse
from transfer_jax.freezing.trees import FROZEN
from transfer_jax.models import Classifier
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.training.regularizers import head_input


@dataclasses.dataclass(frozen=True)
class PhaseSplit:
    """A phase of a schedule, split by its labels.

    Attributes:
        phase: The phase.
        index: Position of the phase in the schedule.
        labels: Maps each path to `frozen` or its block; the factors of low-rank updates come last.
        boundary: End of its frozen prefix; None if the first block trains.
        stats: Paths of the running statistics that it updates.
        steps_per_epoch: Number of steps in an epoch.
        clock: Steps of its learning-rate schedule before the phase, and in total.
        frozen_depth: Number of blocks of the backbone that a controller keeps frozen.
        adapters: Its low-rank updates.
        changes: Paths of the model's arrays that the phase changes at any frozen depth.
    """

    phase: Phase
    index: int
    labels: Mapping[str, str]
    boundary: str | None
    stats: tuple[str, ...]
    steps_per_epoch: int
    clock: tuple[int, int]
    frozen_depth: int
    adapters: LoraUpdates
    changes: frozenset[str]

    @property
    def steps(self) -> int:
        """Number of steps in the phase."""
        return self.phase.epochs * self.steps_per_epoch

    @property
    def state_paths(self) -> frozenset[str]:
        """Paths of the model's arrays in the state of the phase."""
        trainable = {path for path, label in self.labels.items() if label != FROZEN}
        return frozenset(trainable - {*self.adapters.paths}) | {*self.stats}

    @property
    def blocks(self) -> tuple[str, ...]:
        """The backbone's blocks that have parameters, input side first."""
        return tuple(dict.fromkeys(block for block in map(block_of, self.labels) if block != "head"))

    def rates(self, step: int, multipliers: Mapping[str, float] | None = None) -> Rates:
        """Returns the learning rates at a step of the phase; see `PhaseRates.at`."""
        return self._rates.at(self.clock[0] + step, multipliers)

    @functools.cached_property
    def depth(self) -> Mapping[str, float]:
        """The factor of each block's learning rate by its depth."""
        return self._rates.depth

    @functools.cached_property
    def _rates(self) -> PhaseRates:
        return PhaseRates(self.phase, self.labels, self.clock[1])


def split_schedule(schedule: Schedule, model: Classifier, steps_per_epoch: int) -> tuple[PhaseSplit, ...]:
    """Splits all phases of a schedule.

    Args:
        schedule: The schedule.
        model: The model, which may have shapes instead of arrays.
        steps_per_epoch: Number of steps in an epoch.

    Raises:
        SelectorError: As `split_phase`.
    """
    _, params, stats = split(model)
    return tuple(
        split_phase(
            schedule,
            index,
            params=tuple(params),
            stats=tuple(stats),
            block_names=model.backbone.block_names,
            steps_per_epoch=steps_per_epoch,
        )
        for index in range(len(schedule.phases))
    )


def split_phase(
    schedule: Schedule,
    index: int,
    *,
    params: tuple[str, ...],
    stats: tuple[str, ...],
    block_names: tuple[str, ...],
    steps_per_epoch: int,
    frozen_depth: int = 0,
) -> PhaseSplit:
    """Labels and splits a phase.

    Args:
        schedule: The schedule.
        index: Position of the phase in it.
        params: Paths of all parameters.
        stats: Paths of all running statistics.
        block_names: The backbone's blocks in order.
        steps_per_epoch: Number of steps in an epoch.
        frozen_depth: Number of the backbone's first blocks with parameters that are frozen although the
            selector matches them.

    Raises:
        SelectorError: If a selector of the phase matches nothing, or `group_lasso` or `keep` are set although
            the first weights of the head are frozen. The message names the phase.
    """
    phase = schedule.phases[index]
    try:
        whole, adapters = _labelled(phase, params, block_names)
        labelled = freeze_first(whole, frozen_depth)
    except SelectorError as error:
        raise SelectorError(f"phase {phase.name!r}: {error}") from None
    train_stats = phase.norm == "train"
    updated = set(trainable_blocks(labelled)) if train_stats else set()
    updated_ever = set(trainable_blocks(whole)) if train_stats else set()
    before, epochs = schedule.clock(index)
    if (phase.group_lasso or phase.keep < 1) and whole[head_input(whole)] == FROZEN:
        raise SelectorError(
            f"phase {phase.name!r}: group_lasso and keep select inputs of the head, "
            f"but train={phase.train!r} leaves its weights frozen"
        )
    trained = {path for path, label in whole.items() if label != FROZEN} - {*adapters.paths}
    return PhaseSplit(
        phase=phase,
        index=index,
        labels=labelled,
        boundary=boundary(labelled, block_names),
        stats=tuple(sorted(path for path in stats if block_of(path) in updated)),
        steps_per_epoch=steps_per_epoch,
        clock=(before * steps_per_epoch, epochs * steps_per_epoch),
        frozen_depth=frozen_depth,
        adapters=adapters,
        changes=frozenset(
            trained | {*adapters.kernels} | {path for path in stats if block_of(path) in updated_ever}
        ),
    )


def _labelled(
    phase: Phase, params: tuple[str, ...], block_names: tuple[str, ...]
) -> tuple[dict[str, str], LoraUpdates]:
    """Returns the labels of a phase and its low-rank updates."""
    found = labels(params, phase.selector, block_names)
    if not phase.lora:
        return found, LoraUpdates()
    adapters = LoraUpdates.of(parse(phase.lora), tuple(found), phase.lora_rank, phase.lora_alpha)
    factors = {path: block_of(path) for path in adapters.paths}
    return {**found, **dict.fromkeys(adapters.kernels, FROZEN), **factors}, adapters
