"""`diagnose`: all that can be said of a finished run, into `diagnostics.json` in its workdir."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from transfer_jax.data import ImageDataset
from transfer_jax.diagnostics.calibration import reliability
from transfer_jax.diagnostics.drift import similarity_to_start, weight_distance
from transfer_jax.diagnostics.finished_run import FinishedRun, NotApplicable
from transfer_jax.diagnostics.group_scores import group_scores
from transfer_jax.diagnostics.interpolation import interpolation
from transfer_jax.diagnostics.saliency_maps import write_maps
from transfer_jax.diagnostics.scoring import Scorer, sample_images
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import sha256, write_text
from transfer_jax.storage.remote import local_of, pull, push
from transfer_jax.training.evaluation import evaluation_metrics

DiagnosticName = Literal["calibration", "groups", "distance", "train", "cka", "maps", "interpolation"]
DIAGNOSTIC_NAMES: tuple[DiagnosticName, ...] = get_args(DiagnosticName)
"""In the order in which they are computed, the quickest first."""

_UNUSED = (workdir_files.FEATURES, workdir_files.CHECKPOINTS)
"""Folders of a workdir that no diagnostic reads."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """What was found out of a run; None is what was not asked for, or cannot be.

    Attributes:
        start: What the run began with, which its end is compared to: `pretrained` or `random` weights.
        calibration: See `reliability`.
        groups: See `group_scores`.
        distance: See `weight_distance`.
        train: Scores on the images trained on, without augmentation; see `evaluation_metrics`.
        cka: See `similarity_to_start`.
        maps: See `write_maps`.
        interpolation: See `interpolation`.
        omitted: Why a part cannot be, by its name.
        predictions: SHA-256 of the predictions of the run that all this is true of.
    """

    start: Literal["pretrained", "random"]
    calibration: dict[str, Any] | None = None
    groups: dict[str, dict[str, Any]] | None = None
    distance: dict[str, float] | None = None
    train: dict[str, Any] | None = None
    cka: dict[str, float] | None = None
    maps: list[dict[str, Any]] | None = None
    interpolation: list[dict[str, float]] | None = None
    omitted: dict[str, str] = dataclasses.field(default_factory=dict)
    predictions: str

    def to_json(self) -> str:
        """What is known, as JSON."""
        known = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return json.dumps(known, indent=1, allow_nan=False)

    @classmethod
    def read(cls, workdir: Path) -> "Diagnostics":
        """Reads what `diagnose` wrote.

        Raises:
            FileNotFoundError: If it wrote nothing.
            ValueError: If it cannot be read; the file is named.
        """
        path = workdir / workdir_files.DIAGNOSTICS
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged, or of another version: {error}; delete it") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSizes:
    """How much to look at.

    Attributes:
        images: Images to score, at most, of those trained on and of those held out.
        probe: Images held out to compare activations on, at most.
        points: Places on the line between start and end.
        maps: Pictures, at most.
    """

    images: int = 5000
    probe: int = 256
    points: int = 11
    maps: int = 12

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("probe", 4), ("points", 2), ("maps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


def diagnose(
    workdir: str | Path,
    *,
    only: Sequence[DiagnosticName] = (),
    sizes: SampleSizes = SampleSizes(),
    dataset: ImageDataset | None = None,
    progress: Progress | None = None,
) -> Diagnostics:
    """Finds out what fine-tuning did to a network, and how good it is where.

    Each part is written when it is known. What was found before is not computed again, unless it is asked for
    by its name.

    Args:
        workdir: Folder of a finished run, which may be in object storage.
        only: Parts to compute, by name; all that are not there yet without it.
        sizes: How much to look at.
        dataset: The images, if the run was given them; None reads those of its config.
        progress: Where to report to.

    Raises:
        FileNotFoundError: If the run is not finished, its model was not kept, or its weights are not there.
        ValueError: If the images or weights are not those of the run, there is no such part, or a part that
            is asked for by its name cannot be.
    """
    if unknown := [part for part in only if part not in DIAGNOSTIC_NAMES]:
        raise ValueError(f"no part {unknown[0]!r}; the parts are {', '.join(DIAGNOSTIC_NAMES)}")
    workdir, progress = local_of(workdir), progress or Silent()
    pull(workdir, skip=_UNUSED)
    finished = FinishedRun(workdir, progress, dataset)
    found = _known(finished)
    missing = [
        part for part in DIAGNOSTIC_NAMES if getattr(found, part) is None and part not in found.omitted
    ]
    try:
        for part in only or missing:
            omitted = {name: why for name, why in found.omitted.items() if name != part}
            try:
                changes: dict[str, Any] = {part: _COMPUTE[part](finished, sizes)}
            except NotApplicable as reason:
                if only:
                    raise
                progress.say(f"no {part}: {reason}")
                changes, omitted = {}, {**omitted, part: str(reason)}
            found = dataclasses.replace(found, omitted=omitted, **changes)
            write_text(workdir / workdir_files.DIAGNOSTICS, found.to_json())
    finally:
        push(workdir, skip=_UNUSED)
    return found


def _known(finished: FinishedRun) -> Diagnostics:
    """What was found of this run before; nothing if it was trained anew since then."""
    predictions = sha256(finished.predictions_file)
    if (finished.workdir / workdir_files.DIAGNOSTICS).is_file():
        found = Diagnostics.read(finished.workdir)
        if found.predictions == predictions:
            return found
    start = "random" if finished.config.weights == "none" else "pretrained"
    return Diagnostics(start=start, predictions=predictions)


def _calibration(finished: FinishedRun, sizes: SampleSizes) -> dict[str, Any]:
    known = finished.predictions
    return reliability(known.probabilities, known.labels)


def _groups(finished: FinishedRun, sizes: SampleSizes) -> dict[str, dict[str, Any]]:
    known, groups = finished.predictions, finished.images[1].groups
    if groups is None:
        raise NotApplicable("the images have no groups; those of a table have with a column `group`")
    return group_scores(known.probabilities.argmax(-1), known.labels, groups)


def _distance(finished: FinishedRun, sizes: SampleSizes) -> dict[str, float]:
    params = finished.run.params
    start, end = ({path: arrays[path] for path in params} for arrays in (finished.start, finished.end))
    return weight_distance(start, end)


def _train(finished: FinishedRun, sizes: SampleSizes) -> dict[str, Any]:
    dataset = sample_images(finished.images[0], sizes.images, finished.config.seed)
    scorer = Scorer(finished, dataset)
    finished.progress.start("predicting training images", len(dataset))
    probabilities = scorer(finished.end)
    finished.progress.finish()
    return evaluation_metrics(probabilities, dataset.labels, dataset.class_names, dataset.weights)


def _interpolation(finished: FinishedRun, sizes: SampleSizes) -> list[dict[str, float]]:
    return interpolation(finished, np.linspace(0, 1, sizes.points).tolist(), sizes.images)


_COMPUTE: dict[str, Callable[[FinishedRun, SampleSizes], Any]] = {
    "calibration": _calibration,
    "groups": _groups,
    "distance": _distance,
    "train": _train,
    "cka": lambda finished, sizes: similarity_to_start(finished, sizes.probe),
    "maps": lambda finished, sizes: write_maps(finished, sizes.maps),
    "interpolation": _interpolation,
}
