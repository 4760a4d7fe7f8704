"""The images of a run: scanned, without bad ones, and split into training and validation images."""

import dataclasses
import hashlib
import shlex
from pathlib import Path

import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.data import (
    Finding,
    ImageDataset,
    ImageScan,
    Parts,
    drop_images,
    find_problems,
    has_own_split,
    has_own_test,
    limit_per_class,
    scan_images,
    split_in_parts,
)
from transfer_jax.data.quality_checks import find_problems_in_sample
from transfer_jax.data.sources import absolute_source
from transfer_jax.distributed import processes
from transfer_jax.report.progress import Progress
from transfer_jax.runs.config_images import config_images
from transfer_jax.runs.environment import images_given
from transfer_jax.storage.remote import display_path

LARGE, LOOKED_AT = 100_000, 20_000
"""Number of images above which a first look reads a sample, and the size of the sample."""


def run_images(
    config: TrainConfig,
    progress: Progress,
    dataset: ImageDataset | None = None,
    *,
    workdir: Path | None = None,
) -> ImageDataset:
    """Returns all images of a run: without skipped ones, and with near duplicates in groups if configured.

    Args:
        config: The config.
        progress: Receives the progress of the scan, if one is needed.
        dataset: All images; None loads those of the config.
        workdir: The folder of the run, if it has started.

    Raises:
        ValueError: As `usable_images` and `load_dataset`; or if the run was trained on images that were
            passed from Python, and they are not passed again.
    """
    if dataset is None and workdir is not None and images_given(workdir):
        raise ValueError(
            f"the run in {workdir} was trained on images that were passed from Python; pass them again as "
            "`dataset`, or name other images"
        )
    if dataset is None:
        dataset = _loaded(config, workdir, progress)
    scan = scan_with_progress(dataset, progress) if needs_scan(config) else None
    return usable_images(config, dataset, scan)


def _loaded(config: TrainConfig, workdir: Path | None, progress: Progress) -> ImageDataset:
    """Returns the images of a config; if they are gone, the error says how to name their new place."""
    try:
        return config_images(config, progress=progress)
    except ValueError as error:
        place = absolute_source(config.images).removeprefix("folder:").removeprefix("csv:")
        if workdir is None or not Path(place).is_absolute() or Path(place.partition("?")[0]).exists():
            raise
        raise ValueError(
            f"{error}; if the images were moved, run `transfer-jax train --images PLACE --workdir "
            f"{shlex.quote(str(display_path(workdir)))}` once, which compares them"
        ) from error


def needs_scan(config: TrainConfig) -> bool:
    """Returns whether all images must be scanned before they are split."""
    return config.on_bad_image == "skip" or config.keep_together


def usable_images(config: TrainConfig, dataset: ImageDataset, scan: ImageScan | None) -> ImageDataset:
    """Returns the images that a run splits.

    Args:
        config: Decides whether bad images are skipped and whether near duplicates are kept together.
        dataset: All images.
        scan: The scan of them; None leaves them as they are.

    Raises:
        ValueError: If near duplicates are to be kept together, but the source has its own split.
    """
    if scan is None:
        return dataset
    if config.keep_together:
        if has_own_split(dataset) or has_own_test(dataset):
            raise ValueError(
                f"keep_together cannot move images of {config.images!r}, which has its own split: "
                "turn it off (--no-keep-together), or move the files"
            )
        dataset = dataclasses.replace(dataset, together=scan.groups)
    return drop_images(dataset, np.flatnonzero(scan.bad)) if config.on_bad_image == "skip" else dataset


def split_images(dataset: ImageDataset, config: TrainConfig) -> Parts:
    """Splits the images of a run into training, validation and test images.

    Raises:
        ValueError: As `split_in_parts`.
    """
    seed = config.seed if config.split_seed is None else config.split_seed
    parts = split_in_parts(dataset, config.val_fraction, config.test_fraction, seed)
    if config.images_per_class is None:
        return parts
    return parts._replace(train=limit_per_class(parts.train, config.images_per_class, seed))


def check_quality(
    config: TrainConfig, dataset: ImageDataset, scan: ImageScan, image_size: int
) -> tuple[Finding, ...]:
    """Checks images for problems that spoil a training, such as near duplicates on both sides of the split.

    Args:
        config: Decides how the images are split.
        dataset: All images.
        scan: The scan of them.
        image_size: Height and width of the network's input, in pixels.
    """
    together = config.keep_together and not (has_own_split(dataset) or has_own_test(dataset))
    config = dataclasses.replace(config, on_bad_image="skip", keep_together=together)
    usable = np.flatnonzero(~scan.bad)

    def mask(part: ImageDataset) -> np.ndarray:
        assert part.rows is not None  # A part of the usable images has rows.
        found = np.zeros(len(dataset), bool)
        found[usable[part.rows]] = True
        return found

    try:
        parts = split_images(usable_images(config, dataset, scan), config)
    except ValueError as error:
        problem = Finding(kind="split", text=f"the images cannot be split: {error}")
        nothing = np.zeros(len(dataset), bool)
        return (problem, *find_problems(dataset, scan, ~scan.bad, nothing, image_size))
    held_out = mask(parts.validation) if parts.test is None else mask(parts.validation) | mask(parts.test)
    return find_problems(dataset, scan, mask(parts.train), held_out, image_size)


def first_look(dataset: ImageDataset) -> np.ndarray | None:
    """Returns the positions of the sample of a large set that is checked before training, ascending.

    None if the set is small, and all images are checked.
    """
    if len(dataset) <= LARGE:
        return None
    return np.sort(np.random.default_rng(0).choice(len(dataset), LOOKED_AT, replace=False, shuffle=False))


def check_sample(
    dataset: ImageDataset, rows: np.ndarray, scan: ImageScan, parts: Parts, image_size: int
) -> tuple[Finding, ...]:
    """Checks a sample of the images for problems, and all of them for problems of their labels.

    Args:
        dataset: All images.
        rows: The positions of the sample, `first_look`.
        scan: The scan of the sample.
        parts: The parts of all images.
        image_size: Height and width of the network's input, in pixels.
    """
    side = np.zeros(len(dataset), np.uint8)
    for number, part in enumerate(parts, 1):
        if part is not None and part.rows is not None:
            side[part.rows] = number
    side = side[rows]
    return find_problems_in_sample(dataset, rows, scan, side == 1, side > 1, image_size)


def scan_with_progress(dataset: ImageDataset, progress: Progress, *, first_only: bool = False) -> ImageScan:
    """Scans images, with a progress bar if they were not scanned before.

    Args:
        dataset: The images.
        progress: Receives the progress.
        first_only: As for `scan_images`.
    """
    started = False

    def advance(images: int) -> None:
        nonlocal started
        if not started:
            share = 1 if first_only else processes.count()
            progress.start("scanning images", -(-len(dataset) // share))
            started = True
        progress.advance(images)

    scan = scan_images(dataset, advance, first_only=first_only)
    if started:
        progress.finish()
    return scan


def images_digest(train: ImageDataset, evaluation: ImageDataset) -> str:
    """Returns the hash of the names and classes of images that earlier versions stored in checkpoints."""
    digest = hashlib.sha256()
    for dataset in (train, evaluation):
        for name, label in zip(dataset.names, dataset.task.label_texts(dataset.labels), strict=True):
            digest.update(f"{name}\0{label}\0".encode("utf-8", "surrogateescape"))
        digest.update(b"\0")
    return digest.hexdigest()
