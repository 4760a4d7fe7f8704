"""From what a user typed to what is trained: choices are made, images looked at, and both explained."""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import jax
import numpy as np

from transfer_jax.storage import workdir_files
from transfer_jax.config import TrainConfig
from transfer_jax.data import (
    BadImageError,
    Finding,
    ImageDataset,
    ImageScan,
    findings_of,
    has_own_split,
    load_dataset,
    without,
)
from transfer_jax.features import row_shapes
from transfer_jax.models.flat_arrays import block_of, split
from transfer_jax.planning.defaults import Choice, Facts, choose
from transfer_jax.report.progress import Progress
from transfer_jax.runs.workdir import check_place, read_config
from transfer_jax.training.cache_choice import choose_caching
from transfer_jax.training.phase_split import split_schedule
from transfer_jax.training.run import abstract_model, check, expected_input, split_images, scanned

CHOICES, FINDINGS = workdir_files.DEFAULTS, workdir_files.QUALITY
"""Files of a workdir."""
_SAMPLE = 200
"""Images whose size is looked at where not all are."""


@dataclasses.dataclass(frozen=True)
class ResolvedRun:
    """What will be trained.

    Attributes:
        config: The config.
        choices: What was chosen for the user; none where the run is begun, or a config said it all.
        findings: What was found in the images; None where nobody looked.
    """

    config: TrainConfig
    choices: tuple[Choice, ...] = ()
    findings: tuple[Finding, ...] | None = None

    @property
    def notes(self) -> Mapping[str, str]:
        """The same as files for the workdir."""
        notes = {}
        if self.choices:
            notes[CHOICES] = json.dumps([choice.to_json() for choice in self.choices], indent=1)
        if self.findings is not None:
            notes[FINDINGS] = json.dumps([finding.to_json() for finding in self.findings], indent=1)
        return notes


def resolve(
    config: TrainConfig,
    given: Collection[str] | None,
    workdir: Path,
    progress: Progress,
    *,
    look: bool = False,
) -> ResolvedRun:
    """Settles what is trained; nothing is written.

    In a workdir that is begun, what was not given is as it was begun with, and nothing is looked at.

    Args:
        config: What was given, and defaults.
        given: Names of the fields that were given; None where a config says all, and nothing is chosen.
        workdir: The run's folder.
        progress: Where to report to.
        look: Whether to look at all images: for near duplicates, bad files and what else spoils a training.

    Raises:
        ValueError: As `check` and `load_dataset`.
        BadImageError: If images are bad that are not to be skipped.
    """
    if (workdir / workdir_files.CONFIG).is_file():
        if given is None:
            return ResolvedRun(config)
        typed = {name: getattr(config, name) for name in given}
        return ResolvedRun(dataclasses.replace(read_config(workdir), **typed))
    check(config)
    check_place(config, workdir)
    dataset = load_dataset(config.images, config.data_dir)
    survey = scanned(dataset, progress) if look else None
    if survey is not None and survey.reasons and config.on_bad_image == "error":
        more = f" and {len(survey.reasons) - 1} more" if len(survey.reasons) > 1 else ""
        raise BadImageError(f"{survey.reasons[0]}{more}; --on-bad-image skip leaves such images out")
    choices: tuple[Choice, ...] = ()
    if given is not None:
        config, choices = choose(_facts(config, dataset, survey), config, given)
        check(config)  # What was chosen may not go with what was given.
        choices += _caches(config, _usable(config, dataset, survey))
    found = None if survey is None else check_quality(config, dataset, survey)
    return ResolvedRun(config, choices, found)


def check_quality(config: TrainConfig, dataset: ImageDataset, survey: ImageScan) -> tuple[Finding, ...]:
    """What a first look at the images of a config found.

    Args:
        config: Says how they are split, and the input of the network.
        dataset: The images.
        survey: What was seen of them.
    """
    usable = np.flatnonzero(~survey.bad)

    def mask(part: ImageDataset) -> np.ndarray:
        assert part.rows is not None  # It is a part of what is usable.
        return np.isin(np.arange(len(dataset)), usable[part.rows])

    trained, held_out = split_images(_usable(config, dataset, survey), config)
    return findings_of(dataset, survey, mask(trained), mask(held_out), expected_input(config).image_size)


def _usable(config: TrainConfig, dataset: ImageDataset, survey: ImageScan | None) -> ImageDataset:
    """The images as they will be split: without bad ones, and in groups, as far as anybody has looked."""
    if survey is None:
        return dataset
    if config.keep_together and not has_own_split(dataset):
        dataset = dataclasses.replace(dataset, together=survey.groups)
    return without(dataset, np.flatnonzero(survey.bad))


def _facts(config: TrainConfig, dataset: ImageDataset, survey: ImageScan | None) -> Facts:
    own_split, duplicates = None, None
    if has_own_split(dataset):
        train, evaluation = split_images(dataset, config)
        own_split = (len(train), len(evaluation))
    if survey is not None:
        sizes = np.bincount(survey.groups)
        duplicates = int(sizes[sizes > 1].sum())
    _, params, _ = split(abstract_model(config, len(dataset.class_names)))
    return Facts(
        counts=tuple(count for count in dataset.counts().values() if count),
        own_split=own_split,
        pixels=_pixels(dataset) if survey is None else int(np.median(survey.shorter_sides)),
        expected=expected_input(dataclasses.replace(config, image_size=None)).image_size,
        blocks=len({block_of(path) for path in params} - {"head"}),
        accelerator=jax.default_backend() != "cpu",
        duplicates=duplicates,
    )


def _pixels(dataset: ImageDataset) -> int:
    """Median of the shorter sides of some images."""
    sides = []
    for index in np.linspace(0, len(dataset) - 1, min(_SAMPLE, len(dataset))).astype(int):
        try:
            look = dataset.look(int(index))
        except BadImageError:
            continue
        sides.append(min(look.width, look.height))
    return int(np.median(sides)) if sides else 0


def _caches(config: TrainConfig, dataset: ImageDataset) -> tuple[Choice, ...]:
    """Whether each phase will train on cached features, and what that saves."""
    model = abstract_model(config, len(dataset.class_names))
    model.eval()
    graphdef, params, stats = split(model)
    shapes = row_shapes(graphdef, {**params, **stats}, expected_input(config).image_size)
    train, evaluation = split_images(dataset, config)
    stored = config.stored_precision
    choices = []
    for parts in split_schedule(config.schedule, model, steps_per_epoch=1):
        phase, boundary = parts.phase, parts.boundary
        shape = shapes[boundary] if boundary else ()
        images = (len(train), len(evaluation))
        caching = choose_caching(config, phase, boundary, images=images, row_shape=shape, stored=stored)
        if caching.boundary is None:
            choices.append(Choice("cache", f"off in phase {phase.name}", caching.reason))
            continue
        passes, uncached = caching.passes
        why = (
            f"{_bytes(caching.bytes)} of features at {caching.boundary}; the blocks below it see "
            f"{passes:,} images instead of {uncached:,}"
        )
        choices.append(Choice("cache", f"on in phase {phase.name}", why))
    return tuple(choices)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
