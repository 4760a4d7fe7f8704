"""Finds a learning rate for a phase: the loss along an exponential ramp of rates.

Source: Smith 2015, arXiv:1506.01186. The steps are taken on a copy of everything, so that a run goes on as if
nothing had been asked.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.features import FeatureCache
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress
from transfer_jax.runs.checkpointing import arrays_at
from transfer_jax.runs.prepare import prepare
from transfer_jax.runs.resolve import resolve_with
from transfer_jax.storage import workdir_files
from transfer_jax.storage.remote import local_of
from transfer_jax.training.phase_trainer import NonFiniteLossError, PhaseTrainer
from transfer_jax.training.run import Run

_SMOOTHING = 0.9
_DIVERGED = 4.0


@dataclasses.dataclass(frozen=True)
class RateCurve:
    """What the loss did along a ramp of rates.

    Attributes:
        phase: Name of the phase.
        rates: The head's learning rate in each step.
        losses: The loss in each step, exponentially smoothed.
    """

    phase: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The rate at which the loss was lowest; one tenth of it is a common choice."""
        return self.rates[int(np.argmin(self.losses))]

    @property
    def steepest(self) -> float:
        """The rate at which the loss fell fastest; a cautious choice."""
        fell = np.gradient(np.asarray(self.losses), np.log(self.rates))
        return self.rates[int(np.argmin(fell))]

    def to_json(self) -> str:
        """The curve and both suggestions."""
        found = {**dataclasses.asdict(self), "steepest": self.steepest, "lowest": self.lowest}
        return json.dumps(found, indent=1)


def find_rate(
    run: TrainConfig | ResolvedRun,
    phase: str | None = None,
    *,
    workdir: Path | None = None,
    progress: Progress,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
) -> RateCurve:
    """Trains a phase for some steps at rates that grow exponentially; writes nothing.

    Args:
        config: The config.
        phase: Name of the phase; None for the first.
        workdir: A run of the config that has come to the phase, for any but the first.
        progress: Where to report to.
        lowest: The head's first rate; other blocks have theirs by the phase's depth scale.
        highest: The last rate.
        steps: Number of rates; it ends earlier where the loss diverges.

    Raises:
        ValueError: If there is no such phase, or no run has come to it; or if the rates are no range.
    """
    config = run.config if isinstance(run, ResolvedRun) else run
    names = [each.name for each in config.schedule.phases]
    phase = phase or names[0]
    if phase not in names:
        raise ValueError(f"no phase {phase!r}; the phases are {', '.join(names)}")
    if not 0 < lowest < highest or steps < 3:
        raise ValueError(
            f"rates from {lowest} to {highest} in {steps} steps: they must grow, in 3 steps at least"
        )
    index = names.index(phase)
    with tempfile.TemporaryDirectory() as scratch:
        features = Path(scratch, "features")
        features.mkdir()
        run = prepare(resolve_with(run, progress, feature_dir=str(features)), Path(scratch))
        _borrow(_feature_root(config, workdir), features)
        arrays = arrays_at(run, workdir, index, Path(scratch))
        trainer = PhaseTrainer(run, run.parts(index), arrays, progress)
        return _ramp(run, trainer, np.geomspace(lowest, highest, steps), progress)


def _ramp(run: Run, trainer: PhaseTrainer, rates: np.ndarray, progress: Progress) -> RateCurve:
    parts, batches = trainer.parts, iter(trainer.data.train)
    tried: list[float] = []
    losses: list[float] = []
    mean = 0.0
    progress.start(f"finding a rate for {parts.phase.name}", len(rates) * run.batch_size)
    for count, rate in enumerate(rates, 1):
        scaled = {block: np.float32(rate * parts.depth[block]) for block in parts.rates(0)}
        try:
            loss = trainer.step(next(batches), scaled)["loss"]
        except NonFiniteLossError:
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        tried.append(float(rate))
        losses.append(mean / (1 - _SMOOTHING**count))
        progress.advance(run.batch_size, rate=float(rate), loss=losses[-1])
        if losses[-1] > _DIVERGED * min(losses):
            break
    progress.finish()
    return RateCurve(parts.phase.name, tuple(tried), tuple(losses))


def _feature_root(config: TrainConfig, workdir: Path | None) -> Path | None:
    if config.feature_dir:
        return local_of(config.feature_dir)
    return None if workdir is None else workdir / workdir_files.FEATURES


def _borrow(root: Path | None, folder: Path) -> None:
    """Links to complete features, so that they are used and others stay where they vanish."""
    for path in sorted(root.iterdir()) if root is not None and root.is_dir() else ():
        try:
            FeatureCache(path)
        except (OSError, ValueError):
            continue
        (folder / path.name).symlink_to(path.absolute(), target_is_directory=True)
