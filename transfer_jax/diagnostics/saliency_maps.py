"""Saliency maps of a finished run, for misclassified and for correctly classified validation images."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.data import image_fetch
from transfer_jax.diagnostics.attention_rollout import is_transformer, make_rollout
from transfer_jax.diagnostics.finished_run import FinishedRun, NotApplicable
from transfer_jax.diagnostics.grad_cam import last_spatial_block, make_grad_cam
from transfer_jax.extras import require
from transfer_jax.models.flat_arrays import merge
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import SingleLabel
from transfer_jax.tasks.top_predictions import Predicted, predicted_class, truth

_MISTAKES = 2 / 3
"""The fraction of misclassified images among the maps, if there are enough."""
_BATCH = 4
_NAME = re.compile(r"[0-9]{2,}-(right|mistake)\.jpg")
"""The names of the files of maps."""

MapFunction = Callable[[jax.Array, jax.Array], jax.Array]
"""A function `(images, classes) -> maps`."""


def select_images(
    predictions: Predicted, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Selects the images to draw maps for.

    Args:
        predictions: Probabilities, `(images, classes)`, or the most probable classes.
        labels: Indices of the true classes, `(images,)`.
        count: Maximum number of images.
        seed: Seed that draws the correctly classified images.

    Returns:
        The indices of misclassified images, in increasing order of the true class's probability, and those of
        correctly classified images.
    """
    is_right = predicted_class(predictions) == labels
    right, wrong = np.flatnonzero(is_right), np.flatnonzero(~is_right)
    worst = wrong[np.argsort(truth(predictions, labels)[wrong], kind="stable")]
    mistakes = worst[: max(round(count * _MISTAKES), count - len(right))]
    drawn = np.random.default_rng(seed).permutation(right)[: count - len(mistakes)]
    return mistakes, np.sort(drawn)


def map_function(finished: FinishedRun) -> tuple[str, MapFunction]:
    """Returns the name of the method that applies to the network, and its compiled function.

    Args:
        finished: The run.

    Raises:
        NotApplicable: If no method applies.
    """
    run, end = finished.run, finished.end
    if run.train.inputs is not None:
        raise NotApplicable("the examples are not images")
    if run.config.taps:
        raise NotApplicable("the head reads all blocks (taps), so the map of one block would be incomplete")
    if is_transformer(merge(run.graphdef, end).backbone):
        rollout = jax.jit(make_rollout(run.graphdef, run.preprocessing))
        return "attention rollout", lambda images, classes: rollout(end, images)
    block = last_spatial_block(run.feature_shapes)
    if block is None:
        size = run.preprocessing.image_size
        raise NotApplicable(
            f"no block of {run.config.model} has more than one row and column at {size} pixels"
        )
    grad_cam = jax.jit(make_grad_cam(run.graphdef, run.preprocessing, block))
    return f"Grad-CAM at {block}", lambda images, classes: grad_cam(end, images, classes)


def write_maps(finished: FinishedRun, count: int) -> list[dict[str, Any]]:
    """Writes the saliency map of each selected image into `diagnostics/` of the workdir.

    Maps of an earlier call are deleted. `write_overlay` describes the files.

    Args:
        finished: The run.
        count: Maximum number of maps.

    Returns:
        For each map its `image` file, the image's `name`, its `label`, the `predicted` class, the
        `confidence` in the predicted class, and the `method`.

    Raises:
        NotApplicable: If no method applies to the network.
        MissingExtraError: If matplotlib is not installed.
    """
    require("matplotlib")

    from transfer_jax.report.saliency_image import write_overlay

    known, validation = finished.predictions, finished.images[1]
    if not isinstance(known.task, SingleLabel):
        raise NotApplicable(f"it needs one class for each image, and the task is {known.task.kind}")
    groups = select_images(known.values, known.labels, count, finished.config.seed)
    method, make_maps = map_function(finished)
    folder = finished.workdir / workdir_files.SALIENCY_MAPS
    folder.mkdir(exist_ok=True)
    before = {path for path in folder.iterdir() if _NAME.fullmatch(path.name)}
    fetch = image_fetch(validation, finished.run.preprocessing)
    entries: list[dict[str, Any]] = []
    order = np.concatenate(groups)
    finished.progress.start("drawing maps", len(order))
    for first in range(0, len(order), _BATCH):
        rows = order[first : first + _BATCH]
        images = fetch(np.resize(rows, _BATCH))["image"]
        predicted = known.predicted[np.resize(rows, _BATCH)]
        maps = np.asarray(make_maps(jnp.asarray(images), jnp.asarray(predicted)))
        for place, row in enumerate(rows):
            correct = first + place >= len(groups[0])
            path = _path(folder, first + place, correct)
            write_overlay(path, images[place], maps[place])
            entries.append(
                {
                    "image": path.name,
                    "name": known.names[row],
                    "label": known.class_names[known.labels[row]],
                    "predicted": known.class_names[predicted[place]],
                    "confidence": float(known.confidence[row]),
                    "method": method,
                }
            )
            finished.progress.advance(1)
    finished.progress.finish()
    for path in before - {folder / entry["image"] for entry in entries}:
        path.unlink()
    return entries


def _path(folder: Path, index: int, correct: bool) -> Path:
    return folder / f"{index + 1:02}-{'right' if correct else 'mistake'}.jpg"
