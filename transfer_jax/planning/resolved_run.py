"""A run with everything that is known before training: its images, its network and its defaults."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.data import Finding, ImageDataset
from transfer_jax.distributed.sharding import Strategy
from transfer_jax.features import RowFormat
from transfer_jax.planning.defaults import Choice
from transfer_jax.planning.network import Network
from transfer_jax.storage import workdir_files
from transfer_jax.training.cache_choice import Caching, choose_caching
from transfer_jax.training.phase_split import PhaseSplit, split_schedule
from transfer_jax.training.run import Run, batch_size


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ResolvedRun:
    """A run that is checked, and whose images and network are known; no array is loaded.

    Attributes:
        config: The config, with the defaults that were chosen.
        train: The training images.
        evaluation: The validation images.
        test: The test images; None if there are none.
        network: The weights, the input and the abstract model of the network.
        defaults: The defaults that were chosen for the user; empty if nothing was chosen.
        findings: The results of the quality checks of the images; None if they were not checked.
        skipped: A line for each bad image that is skipped; None if bad images are errors.
    """

    config: TrainConfig
    train: ImageDataset
    evaluation: ImageDataset
    network: Network
    test: ImageDataset | None = None
    defaults: tuple[Choice, ...] = ()
    findings: tuple[Finding, ...] | None = None
    skipped: tuple[str, ...] | None = None

    @functools.cached_property
    def phases(self) -> tuple[PhaseSplit, ...]:
        """The phases of the schedule, split."""
        steps = len(self.train) // batch_size(self.config, len(self.train))
        return split_schedule(self.config.schedule, self.network.model, steps)

    @property
    def notes(self) -> dict[str, str]:
        """The texts of the files that describe the run in its workdir, by file name."""
        notes = {}
        if self.defaults:
            notes[workdir_files.DEFAULTS] = _json(self.defaults)
        if self.findings is not None:
            notes[workdir_files.QUALITY] = _json(self.findings)
        if self.skipped is not None:
            notes[workdir_files.SKIPPED_IMAGES] = "".join(f"{line}\n" for line in self.skipped)
        return notes

    def caching(self, parts: PhaseSplit) -> Caching:
        """Returns whether a phase trains on cached features, and why.

        Raises:
            ValueError: If the phase requires a cache that is impossible.
        """
        return choose_caching(
            self.config,
            parts.phase,
            parts.boundary,
            images=(len(self.train), len(self.evaluation)),
            row_format=self._row_format(parts.boundary) if parts.boundary else None,
        )

    def _row_format(self, boundary: str) -> RowFormat:
        return RowFormat.of_shapes(self.network.feature_shapes[boundary], self.config.stored_precision)

    def with_settings(self, **settings: Any) -> "ResolvedRun":
        """Returns the run with other values of fields of its config.

        Args:
            **settings: Fields that change neither the images nor the network, such as the schedule.
        """
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **settings))

    def abstract_run(self, strategy: Strategy) -> Run:
        """Returns the run with shapes instead of arrays, on devices that need not be present."""
        return Run.of(
            self.network.model,
            config=self.config,
            train=self.train,
            strategy=strategy,
            workdir=Path(),
            preprocessing=self.network.preprocessing,
            evaluation=self.evaluation,
            test=self.test,
        )


def _json(entries: tuple[Choice, ...] | tuple[Finding, ...]) -> str:
    return json.dumps([entry.to_json() for entry in entries], indent=1)
