"""Estimated times of trials, from measured forward passes and the operations of what trains."""

from transfer_jax.planning.forward_cost import prefix_multiply_adds
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.search.budget.arms import FIRST_EPOCHS, VIEWS
from transfer_jax.search.budget.search_record import TrialRecord

_START = 8.0
"""Seconds of a trial before its first image: loading, compiling a head, writing."""
_COMPILE = 12.0
"""Seconds to compile the programs of a schedule that are not cached."""
_BACKWARD = 3.0
"""Operations of a training step, relative to its forward pass through the trainable blocks."""
_MARGIN = 1.2


class Estimates:
    """Estimates of the seconds of trials."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._rates: list[float] = []
        self._ratios: list[float] = []

    def measured(self, network: str, image_size: int, seconds: float) -> None:
        """Notes the seconds of a network's forward pass for each image."""
        self._seconds[network] = seconds
        self._rates.append(seconds / prefix_multiply_adds(network, image_size, None))

    def observed(self, trial: TrialRecord) -> None:
        """Notes the time that a finished trial took, which corrects later estimates."""
        if trial.estimate and trial.ended is not None and trial.kind == "phases":
            self._ratios.append((trial.ended - trial.started) / trial.estimate)

    def seconds_per_image(self, network: str) -> float:
        """Returns the measured seconds of a forward pass; 0 if it is not measured."""
        return self._seconds.get(network, 0.0)

    def slowest(self) -> float:
        """Returns the largest of the measured seconds."""
        return max(self._seconds.values(), default=0.0)

    def heads(self, resolved: ResolvedRun) -> float | None:
        """Returns the seconds of a sweep of heads; None if no network is measured yet."""
        each = self._forward(resolved)
        return None if each is None else _START + each * (len(resolved.train) + len(resolved.evaluation))

    def arm(self, resolved: ResolvedRun, rung: int) -> float | None:
        """Returns the seconds of a rung of an arm; None if no network is measured yet."""
        each = self._forward(resolved)
        if each is None:
            return None
        parts = resolved.phases[-1]
        name, side = resolved.config.model, resolved.network.preprocessing.image_size
        below = prefix_multiply_adds(name, side, parts.boundary) if parts.boundary else 0
        whole = prefix_multiply_adds(name, side, None)
        extract = 0.0
        if rung == 0:
            extract = (VIEWS * len(resolved.train) + len(resolved.evaluation)) * each * below / whole
        epochs = FIRST_EPOCHS * 2**rung
        steps = epochs * len(resolved.train) * each * _BACKWARD * (whole - below) / whole
        validations = epochs * len(resolved.evaluation) * each * (whole - below) / whole
        found = _START + (_COMPILE if rung == 0 else 0) + extract + steps + validations
        ratio = sum(self._ratios) / len(self._ratios) if self._ratios else _MARGIN
        return found * max(ratio, 0.5)

    def _forward(self, resolved: ResolvedRun) -> float | None:
        name = resolved.config.model
        if name in self._seconds:
            return self._seconds[name]
        if not self._rates:
            return None
        side = resolved.network.preprocessing.image_size
        return sum(self._rates) / len(self._rates) * prefix_multiply_adds(name, side, None)
