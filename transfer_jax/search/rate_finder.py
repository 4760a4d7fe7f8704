"""A learning-rate finder for a phase: the loss along rates that grow exponentially.

Source: Smith 2015, arXiv:1506.01186. The steps use copies of all arrays, so that a run is not changed.
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
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve_with
from transfer_jax.storage import workdir_files
from transfer_jax.storage.remote import display_path, is_mirrored, local_path
from transfer_jax.training.phase_trainer import NonFiniteLossError, PhaseTrainer
from transfer_jax.training.run import Run

_SMOOTHING = 0.9
_DIVERGED = 4.0


@dataclasses.dataclass(frozen=True)
class RateCurve:
    """The loss along rates that grow exponentially.

    Attributes:
        phase: Name of the phase.
        rates: The head's learning rate in each step.
        losses: The exponentially smoothed loss in each step.
    """

    phase: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The rate with the lowest loss. One tenth of it is a common choice."""
        return self.rates[int(np.argmin(self.losses))]

    @property
    def steepest(self) -> float:
        """The rate at which the loss fell fastest. It is a cautious choice."""
        slopes = np.gradient(np.asarray(self.losses), np.log(self.rates))
        return self.rates[int(np.argmin(slopes))]

    def to_json(self) -> str:
        """Returns the curve and both suggestions as a JSON text."""
        values = {**dataclasses.asdict(self), "steepest": self.steepest, "lowest": self.lowest}
        return json.dumps(values, indent=1)


def find_rate(
    config: TrainConfig | ResolvedRun,
    phase: str | None = None,
    *,
    workdir: Path | None = None,
    progress: Progress,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
) -> RateCurve:
    """Trains a phase for some steps at rates that grow exponentially; nothing is written.

    Args:
        config: A config, or the result of `resolve`.
        phase: Name of the phase; None takes the first one.
        workdir: A run of the config that has reached the phase; needed for all phases but the first.
        progress: Receives the progress of extraction and training.
        lowest: The head's first learning rate; those of other blocks follow from the phase's depth scale.
        highest: The head's last learning rate.
        steps: Number of rates. The search ends earlier if the loss diverges.

    Returns:
        The rates and the losses.

    Raises:
        ValueError: If there is no such phase, if no run has reached it, or if the rates do not grow.
    """
    own = config.config if isinstance(config, ResolvedRun) else config
    names = [each.name for each in own.schedule.phases]
    phase = phase or names[0]
    if phase not in names:
        raise ValueError(f"no phase {phase!r}; the phases are {', '.join(names)}")
    if not 0 < lowest < highest or steps < 3:
        raise ValueError(
            f"invalid rates from {lowest} to {highest} in {steps} steps: they must grow, in at least 3 steps"
        )
    index = names.index(phase)
    with tempfile.TemporaryDirectory() as scratch:
        root, features = _feature_root(own, workdir), Path(scratch, "features")
        features.mkdir()
        if root is not None and is_mirrored(root):  # Features in object storage are used where they are.
            folder = display_path(root)
        else:
            folder = str(features)
            _link_caches(root, features)
        run = load_network(resolve_with(config, progress, feature_dir=folder), Path(scratch))
        arrays = arrays_at(run, workdir, index)
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
        return local_path(config.feature_dir)
    return None if workdir is None else workdir / workdir_files.FEATURES


def _link_caches(root: Path | None, folder: Path) -> None:
    """Links complete caches into a temporary folder, so that they are used and new caches are deleted."""
    for path in sorted(root.iterdir()) if root is not None and root.is_dir() else ():
        try:
            FeatureCache(path)
        except (OSError, ValueError):
            continue
        (folder / path.name).symlink_to(path.absolute(), target_is_directory=True)
