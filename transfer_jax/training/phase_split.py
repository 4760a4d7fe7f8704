"""The split of a phase into frozen and trainable arrays, before anything is read or compiled."""

import dataclasses
import functools
from collections.abc import Mapping

from flax import nnx

from transfer_jax.freezing.block_groups import group_by_block
from transfer_jax.freezing.labels import boundary, freeze_first, labels, trainable_blocks
from transfer_jax.freezing.learning_rates import PhaseRates, Rates
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.freezing.selectors import SelectorError
from transfer_jax.freezing.trees import FROZEN
from transfer_jax.models import Classifier
from transfer_jax.models.adapters.adapter import Adapter, adapter_paths
from transfer_jax.models.adapters.install import install
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.training.regularizers import head_input


@dataclasses.dataclass(frozen=True)
class PhaseSplit:
    """A phase of a schedule, split by its labels.

    Attributes:
        phase: The phase.
        index: Position of the phase in the schedule.
        labels: Maps each path to `frozen` or its block.
        boundary: End of its frozen prefix; None if the first block trains.
        stats: Paths of the running statistics that it updates.
        steps_per_epoch: Number of steps in an epoch.
        clock: Steps of its learning-rate schedule before the phase, and in total.
        frozen_depth: Number of blocks of the backbone that a controller keeps frozen.
        adapters: The adapters of the network in this phase.
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
    adapters: tuple[Adapter, ...]
    changes: frozenset[str]

    @property
    def steps(self) -> int:
        """Number of steps in the phase."""
        return self.phase.epochs * self.steps_per_epoch

    @property
    def state_paths(self) -> frozenset[str]:
        """Paths of the model's arrays in the state of the phase."""
        return frozenset(path for path, label in self.labels.items() if label != FROZEN) | {*self.stats}

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
    found = []
    for index in range(len(schedule.phases)):
        adapted = with_adapters(model, schedule, index)
        _, params, stats = split(adapted)
        found.append(
            split_phase(
                schedule,
                index,
                params=tuple(params),
                stats=tuple(stats),
                block_names=model.backbone.block_names,
                adapters=adapted.backbone.adapters,
                steps_per_epoch=steps_per_epoch,
            )
        )
    return tuple(found)


def with_adapters(model: Classifier, schedule: Schedule, index: int, seed: int = 0) -> Classifier:
    """Returns a model with the adapters that a schedule has in a phase; the model itself if there are none.

    Args:
        model: The model, which may have shapes instead of arrays.
        schedule: The schedule.
        index: Position of the phase in it.
        seed: Seed of the initial values of the adapters.

    Raises:
        SelectorError: If an adapter selects no layer that it can adapt. The message names the phase.
    """
    if not (texts := schedule.adapters(index)):
        return model
    groups = group_by_block(split(model)[1], model.backbone.block_names)
    adapted = nnx.clone(model)
    for text in texts:
        try:
            install(adapted, text.resolve(groups), seed)
        except ValueError as error:
            name = next(phase.name for phase in schedule.phases if text in phase.adapters)
            raise SelectorError(f"phase {name!r}: {error}") from None
    return adapted


def split_phase(
    schedule: Schedule,
    index: int,
    *,
    params: tuple[str, ...],
    stats: tuple[str, ...],
    block_names: tuple[str, ...],
    steps_per_epoch: int,
    adapters: tuple[Adapter, ...] = (),
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
        adapters: The adapters of the network in the phase.
        frozen_depth: Number of the backbone's first blocks with parameters that are frozen although the
            selector matches them.

    Raises:
        SelectorError: If a selector of the phase matches nothing, or `group_lasso` or `keep` are set although
            the first weights of the head are frozen. The message names the phase.
    """
    phase = schedule.phases[index]
    try:
        whole = _labelled(phase, params, block_names, adapters)
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
    trained = {path for path, label in whole.items() if label != FROZEN}
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
        changes=frozenset(trained | {path for path in stats if block_of(path) in updated_ever}),
    )


def _labelled(
    phase: Phase, params: tuple[str, ...], block_names: tuple[str, ...], adapters: tuple[Adapter, ...]
) -> dict[str, str]:
    """Returns the labels of a phase: its adapters train, and the kernels under them are frozen."""
    found, names = labels(params, phase.selector, block_names), {text.name for text in phase.adapters}
    for adapter in adapters:
        if adapter.name in names:
            found |= {path: block_of(path) for path in adapter_paths(params, [adapter.name])}
            under = [f"{layer}/kernel" for layer in adapter.layers] if adapter.changes_weights else []
            found |= dict.fromkeys(under, FROZEN)
    return found
