"""The step from a config to a run that is checked, with its images, its network and its defaults."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.counted import counted
from transfer_jax.data import BadImageError, ImageDataset, ImageScan, has_own_split
from transfer_jax.data.image_files import abridged
from transfer_jax.data.parts import has_own_test, without_own_test
from transfer_jax.data.split import divisible_counts, unevaluated_classes, unevaluated_text
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.planning.defaults import Choice, Facts, choose
from transfer_jax.planning.model_inputs import check_inputs, without_augmentation
from transfer_jax.planning.network import Network, check_config, check_schedule, set_outputs
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.planning.task_options import check_task_options
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.absolute_paths import with_absolute_paths
from transfer_jax.runs.config_images import config_images
from transfer_jax.runs.images import (
    check_quality,
    check_sample,
    first_look,
    needs_scan,
    scan_with_progress,
    split_images,
    usable_images,
)
from transfer_jax.runs.run_start import read_start
from transfer_jax.runs.workdir import check_place, read_config
from transfer_jax.storage import workdir_files

_SAMPLE = 200
"""Number of images whose size is read if not all images are scanned."""


def resolve(
    config: TrainConfig,
    *,
    given: Collection[str] | None = None,
    workdir: Path | None = None,
    progress: Progress | None = None,
    scan: bool = False,
    dataset: ImageDataset | None = None,
) -> ResolvedRun:
    """Checks a config, loads its list of images and chooses defaults; nothing is written.

    The config is checked before any image is read. The list of images is loaded once, and the abstract model
    is built once. In a workdir whose run has started, the config is that of `resumed_config`, no defaults are
    chosen, the images are not checked, and the weights `auto` are those that the run started with.

    Args:
        config: The config.
        given: Names of the fields that the user set; defaults are chosen for the others. None chooses none.
        workdir: The run's folder; None skips its checks.
        progress: Receives the progress of the scan; None shows none.
        scan: Whether to scan all images: for near duplicates, bad files and other problems. Of more than
            100,000 images, a sample of 20,000 is read unless the config needs all.
        dataset: All images; None loads those of the config.

    Raises:
        ValueError: As `check_config`, `check_place`, `load_dataset` and `check_inputs`, or if a chosen
            default does not fit a field that the user set.
        FileNotFoundError: If the images or the weights are not on this machine.
        BadImageError: If a scan finds bad images that are not to be skipped.
    """
    progress = progress or Silent()
    resumed = None if workdir is None else resumed_config(config, given, workdir)
    if resumed is not None:
        config, given, scan = resumed, None, False
    elif workdir is not None:
        check_place(config, workdir)
    config = with_absolute_paths(config)
    schedule_is_set = given is None or "schedule" in given
    started_with = None if workdir is None or resumed is None else _chosen_weights(workdir)
    network = check_config(config, schedule=schedule_is_set, started_with=started_with)
    for note in network.notes:
        progress.log(note)
    if dataset is None:
        dataset = config_images(config, progress=progress)
    elif config.task not in ("auto", dataset.task.kind):
        raise ValueError(f"the images have targets of the task {dataset.task.kind}, and task={config.task!r}")
    check_inputs(dataset, network.model.backbone, config.model)
    rows = first_look(dataset) if scan and not needs_scan(config) else None
    looked_at = None
    if rows is not None:
        progress.log(
            f"first look at {len(rows):,} of {len(dataset):,} images; `transfer-jax check` reads all of them"
        )
        looked_at, scan = scan_with_progress(dataset.subset(rows), progress, first_only=True), False
        _check_readable(config, looked_at)
    scanned = scan_with_progress(dataset, progress) if scan or needs_scan(config) else None
    if not scan and looked_at is None:  # Otherwise they are among the findings.
        for note in dataset.notes:
            progress.log(note)
    if scan and scanned is not None:
        _check_readable(config, scanned)
    set_outputs(network.model, dataset.task.outputs)
    defaults: tuple[Choice, ...] = ()
    if given is not None:
        facts = _facts(config, dataset, scanned if scan else None, network, looked_at)
        config, defaults = choose(facts, config, given)
        if not schedule_is_set:
            check_schedule(config, network.model)
    if dataset.inputs is not None:
        config = without_augmentation(config)
    parts = split_images(usable_images(config, dataset, scanned), config)
    train, evaluation, test = parts
    check_task_options(config, train)
    unevaluated = unevaluated_classes(train, evaluation)
    if unevaluated and not scan:
        progress.log(f"{unevaluated_text(unevaluated)}: trained, but in no score")
    if (limit := config.images_per_class) is not None:
        counts = train.task.counts(train.labels)
        if fewer := int(((counts > 0) & (counts < limit)).sum()):
            progress.log(
                f"images_per_class {limit:,}: {fewer:,} of {len(dataset.class_names):,} classes have fewer "
                "training images and keep all of them"
            )
    if len(train) < config.accumulate:
        raise ValueError(
            f"{counted(len(train), 'training image')} cannot be split into accumulate={config.accumulate} "
            "parts"
        )
    skipped = None
    if config.on_bad_image == "skip" and scanned is not None:
        skipped = tuple(scanned.reasons)
        if skipped:
            bad = counted(len(skipped), "bad image is", "bad images are")
            progress.log(f"{bad} skipped; {workdir_files.SKIPPED_IMAGES} lists them")
            good = dataset.subset(np.flatnonzero(~scanned.bad)).counts()
            if lost := [name for name, count in good.items() if not count]:
                progress.log(
                    f"classes without a readable image: {abridged(lost)}; the model cannot learn them"
                )
    findings = None
    if scan and scanned is not None:
        findings = check_quality(config, dataset, scanned, network.preprocessing.image_size)
    elif looked_at is not None and rows is not None:
        findings = check_sample(dataset, rows, looked_at, parts, network.preprocessing.image_size)
    resolved = ResolvedRun(
        config=config,
        train=train,
        evaluation=evaluation,
        test=test,
        network=network,
        defaults=defaults,
        findings=findings,
        skipped=skipped,
    )
    if given is None:
        return resolved
    return dataclasses.replace(resolved, defaults=(*defaults, *_cache_choices(resolved)))


def resolve_with(run: TrainConfig | ResolvedRun, progress: Progress, **settings: Any) -> ResolvedRun:
    """Returns a resolved run with other values of fields of its config.

    Args:
        run: A config, which is resolved, or a resolved run, which is changed.
        progress: Receives the progress of a scan of the images, if one is needed.
        **settings: Fields that change neither the images nor the network.
    """
    if isinstance(run, ResolvedRun):
        return run.with_settings(**settings)
    return resolve(dataclasses.replace(run, **settings), progress=progress)


def resumed_config(config: TrainConfig, given: Collection[str] | None, workdir: Path) -> TrainConfig | None:
    """Returns the config to resume a run with, or None if no run has started in a workdir.

    Args:
        config: The config.
        given: Names of the fields that the user set; all others are those that the run started with. None
            takes the whole config.
        workdir: The run's folder.
    """
    if not (workdir / workdir_files.CONFIG).is_file():
        return None
    if given is None:
        return config
    return dataclasses.replace(read_config(workdir), **{name: getattr(config, name) for name in given})


def _chosen_weights(workdir: Path) -> str | None:
    """Returns the set of weights that a run with the weights `auto` started with; None if it is not known."""
    start = read_start(workdir)
    return start.weights if start is not None and read_config(workdir).weights == "auto" else None


def _check_readable(config: TrainConfig, scan: ImageScan) -> None:
    """Raises `BadImageError` if there are bad images that are not to be skipped, or no others."""
    if scan.bad.all():
        raise BadImageError(
            f"none of the {counted(len(scan), 'image')} can be read, such as {scan.reasons[0]}"
        )
    if config.on_bad_image == "error" and scan.reasons:
        more = f" and {len(scan.reasons) - 1} more" if len(scan.reasons) > 1 else ""
        raise BadImageError(f"{scan.reasons[0]}{more}; --on-bad-image skip leaves such images out")


def _facts(
    config: TrainConfig,
    dataset: ImageDataset,
    scan: ImageScan | None,
    network: Network,
    looked_at: ImageScan | None = None,
) -> Facts:
    """Returns what defaults depend on.

    Args:
        config: The config.
        dataset: All images.
        scan: The scan of all images; None if they are not scanned.
        network: The network.
        looked_at: The scan of a sample; None if there is none.
    """
    own_split, duplicates, looked_at = None, None, scan or looked_at
    rest = without_own_test(dataset)
    counts = divisible_counts(rest, None)
    groups = None if scan is None else scan.groups
    if groups is not None and has_own_test(dataset) and dataset.test is not None:
        groups = groups[~dataset.test]
    if has_own_split(dataset):
        train, evaluation, _ = split_images(dataset, config)
        own_split = (len(train), len(evaluation))
    if scan is not None:
        sizes = np.bincount(scan.groups)
        duplicates = int(sizes[sizes > 1].sum())
    _, params, _ = split(network.model)
    return Facts(
        counts=tuple(counts[counts > 0].tolist()),
        own_split=own_split,
        pixels=_shorter_side(dataset) if looked_at is None else int(np.median(looked_at.shorter_sides)),
        expected=network.preprocessing.image_size,
        blocks=len({block_of(path) for path in params} - {"head"}),
        accelerator=jax.default_backend() != "cpu",
        duplicates=duplicates,
        units=None if groups is None else tuple(divisible_counts(rest, groups)[counts > 0].tolist()),
        own_test=len(dataset) - len(rest),
        task=dataset.task.kind,
    )


def _shorter_side(dataset: ImageDataset) -> int:
    """Returns the median of the shorter sides of some images, in pixels."""
    sides = []
    for index in np.linspace(0, len(dataset) - 1, min(_SAMPLE, len(dataset))).astype(int):
        try:
            summary = dataset.summary(int(index))
        except BadImageError:
            continue
        sides.append(min(summary.width, summary.height))
    return int(np.median(sides)) if sides else 0


def _cache_choices(resolved: ResolvedRun) -> tuple[Choice, ...]:
    """Returns whether each phase trains on cached features, and what that saves."""
    choices = []
    for parts in resolved.phases:
        name, caching = parts.phase.name, resolved.caching(parts)
        if caching.boundary is None:
            choices.append(Choice("cache", f"off in phase {name}", caching.reason))
            continue
        passes, uncached = caching.passes
        why = (
            f"{_size(caching.bytes)} of features at {caching.boundary}; the blocks below it see "
            f"{passes:,} images instead of {uncached:,}"
        )
        choices.append(Choice("cache", f"on in phase {name}", why))
    return tuple(choices)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
