"""The function `diagnose`, which computes the diagnostics of a finished run into `diagnostics.json`."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transfer_jax.data import ImageDataset
from transfer_jax.diagnostics.calibration import reliability
from transfer_jax.diagnostics.drift import similarity_to_start, weight_distance
from transfer_jax.diagnostics.finished_run import FinishedRun, NotApplicable
from transfer_jax.diagnostics.group_scores import group_scores
from transfer_jax.diagnostics.interpolation import interpolation
from transfer_jax.diagnostics.saliency_maps import write_maps
from transfer_jax.diagnostics.sample_sizes import DIAGNOSTIC_NAMES, DiagnosticName, SampleSizes
from transfer_jax.diagnostics.scoring import Scorer, sample_images
from transfer_jax.extras import MissingExtraError
from transfer_jax.fields import as_tuple
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import sha256, write_text
from transfer_jax.storage.remote import local_path, pull, push
from transfer_jax.tasks import SingleLabel
from transfer_jax.tasks.temperature import at_temperature

_UNUSED = (workdir_files.FEATURES, workdir_files.CHECKPOINTS)
"""Folders of a workdir that no diagnostic reads."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """The diagnostics of a run. None means not requested, or not applicable to the run.

    Attributes:
        start: The weights at the start of the run, which its end is compared with: `pretrained` or `random`.
        calibration: The calibration on the validation images, see `reliability`; and the `temperature` that
            they chose with its calibration error `scaled_ece`, if they chose one.
        groups: The scores of each group of validation images; see `group_scores`.
        distance: The distance of each block's weights from the start; see `weight_distance`.
        train: The scores on the training images, without augmentation; see `Task.scores`.
        cka: The similarity of each block's activations to those at the start; see `similarity_to_start`.
        maps: The saliency maps; see `write_maps`.
        interpolation: The scores between the start and the end; see `interpolation`.
        omitted: By the name of a diagnostic that does not apply to the run, the reason.
        predictions: The SHA-256 hash of `predictions.csv` of the diagnosed run.
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
        """Returns all diagnostics that are not None, as JSON."""
        known = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return json.dumps(known, indent=1, allow_nan=False)

    @classmethod
    def read(cls, workdir: Path) -> "Diagnostics":
        """Reads the diagnostics that `diagnose` has written.

        Args:
            workdir: Folder of the run.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: If the file is invalid.
        """
        path = workdir / workdir_files.DIAGNOSTICS
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or from another version: {error}; delete it to compute it again"
            ) from None


def diagnose(
    workdir: str | Path,
    *,
    only: Sequence[DiagnosticName] = (),
    sizes: SampleSizes = SampleSizes(),
    dataset: ImageDataset | None = None,
    progress: Progress | None = None,
) -> Diagnostics:
    """Computes the diagnostics of a finished run and writes them to `diagnostics.json` in its workdir.

    Each diagnostic is written as soon as it is computed. Diagnostics that are in the file are not computed
    again, unless `only` names them. Nothing is trained.

    Args:
        workdir: Folder of a finished run, local or in object storage.
        only: Names of diagnostics to compute; empty computes all that are missing.
        sizes: Numbers of images and points to use.
        dataset: Images of the run, if it was trained on a dataset object; None reads those of its config.
        progress: Reporter of progress; None reports nothing.

    Returns:
        All diagnostics in the file.

    Raises:
        FileNotFoundError: If the run is not finished, or its model or its weights are missing.
        ValueError: If the images or weights differ from those of the run, a name is unknown, or a diagnostic
            in `only` does not apply to the run.
    """
    only = as_tuple(only)
    if unknown := [part for part in only if part not in DIAGNOSTIC_NAMES]:
        raise ValueError(
            f"unknown diagnostic {unknown[0]!r}; the diagnostics are {', '.join(DIAGNOSTIC_NAMES)}"
        )
    workdir, progress = local_path(workdir), progress or Silent()
    pull(workdir, skip=_UNUSED)
    finished = FinishedRun(workdir, progress, dataset)
    found = _existing(finished)
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
                progress.log(f"No {part}: {reason}")
                changes, omitted = {}, {**omitted, part: str(reason)}
            except MissingExtraError as error:
                if only:
                    raise
                progress.log(f"No {part}: {error}")
                continue
            found = dataclasses.replace(found, omitted=omitted, **changes)
            write_text(workdir / workdir_files.DIAGNOSTICS, found.to_json())
    finally:
        push(workdir, skip=_UNUSED)
    return found


def _existing(finished: FinishedRun) -> Diagnostics:
    """Returns the diagnostics in the file, or empty ones if the run was trained again after them."""
    predictions = sha256(finished.predictions_file)
    if (finished.workdir / workdir_files.DIAGNOSTICS).is_file():
        found = Diagnostics.read(finished.workdir)
        if found.predictions == predictions:
            return found
    start = "random" if finished.config.weights == "none" else "pretrained"
    return Diagnostics(start=start, predictions=predictions)


def _calibration(finished: FinishedRun, sizes: SampleSizes) -> dict[str, Any]:
    known = finished.predictions
    if not known.task.probabilistic:
        raise NotApplicable(f"it needs probabilities, and the task is {known.task.kind}")
    found = reliability(known.values, known.labels)
    saved = finished.saved
    if saved is None or saved.temperature is None or not isinstance(known.values, np.ndarray):
        return found
    scaled = at_temperature(saved.task, known.values, saved.temperature)
    error = reliability(scaled, known.labels)["ece"]
    return {**found, "temperature": saved.temperature, "scaled_ece": error}


def _groups(finished: FinishedRun, sizes: SampleSizes) -> dict[str, dict[str, Any]]:
    known, groups = finished.predictions, finished.images[1].groups
    if groups is None:
        raise NotApplicable("the images have no groups; list them in a table with a column `group`")
    _needs_classes(finished)
    return group_scores(known.predicted, known.labels, groups)


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
    return finished.run.task.scores(probabilities, dataset.labels, dataset.weights)


def _needs_classes(finished: FinishedRun) -> None:
    """Raises `NotApplicable` if the predictions of a run are not classes."""
    if not isinstance(task := finished.predictions.task, SingleLabel):
        raise NotApplicable(f"it needs one class for each image, and the task is {task.kind}")


def _interpolation(finished: FinishedRun, sizes: SampleSizes) -> list[dict[str, float]]:
    _needs_classes(finished)
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
