"""Pictures of what a trained network looked at, in images that it took for something else, and in others."""

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
from transfer_jax.models.flat_arrays import merge
from transfer_jax.report.saliency_image import write_overlay
from transfer_jax.storage import workdir_files

_MISTAKES = 2 / 3
"""Their share of the pictures, if there are so many."""
_BATCH = 4

MapFunction = Callable[[jax.Array, jax.Array], jax.Array]


def select_images(
    probabilities: np.ndarray, labels: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which images to show.

    Args:
        probabilities: `(images, classes)`.
        labels: `(images,)`, the true classes.
        count: How many images, at most.
        seed: Draws those that are right.

    Returns:
        The worst mistakes, those whose true class got the least probability first, and some that are right.
    """
    right = np.flatnonzero(probabilities.argmax(-1) == labels)
    wrong = np.flatnonzero(probabilities.argmax(-1) != labels)
    worst = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
    mistakes = worst[: max(round(count * _MISTAKES), count - len(right))]
    drawn = np.random.default_rng(seed).permutation(right)[: count - len(mistakes)]
    return mistakes, np.sort(drawn)


def map_function(finished: FinishedRun) -> tuple[str, MapFunction]:
    """The method that fits the trained network, and the compiled function `(images, classes) -> maps` of it.

    Raises:
        NotApplicable: If none does.
    """
    run, end = finished.run, finished.end
    if run.config.taps:
        raise NotApplicable("the head reads all blocks (taps): the map of one of them would show a part")
    if is_transformer(merge(run.graphdef, end).backbone):
        rollout = jax.jit(make_rollout(run.graphdef, run.preprocessing))
        return "attention rollout", lambda images, classes: rollout(end, images)
    block = last_spatial_block(run.row_shapes)
    if block is None:
        size = run.preprocessing.image_size
        raise NotApplicable(f"no block of {run.config.model} has more than one place at {size} pixels")
    grad_cam = jax.jit(make_grad_cam(run.graphdef, run.preprocessing, block))
    return f"Grad-CAM at {block}", lambda images, classes: grad_cam(end, images, classes)


def write_maps(finished: FinishedRun, count: int) -> list[dict[str, Any]]:
    """Writes a picture for each image chosen into `diagnostics/` of the workdir; see `write_overlay`.

    Args:
        finished: The run.
        count: How many pictures, at most.

    Returns:
        For each picture its `image` file, the image's `name`, `label`, `predicted` class, the `confidence` in
        that, and the `method`.

    Raises:
        NotApplicable: If there is no method for the network.
    """
    known, held_out = finished.predictions, finished.images[1]
    groups = select_images(known.probabilities, known.labels, count, finished.config.seed)
    method, maps_of = map_function(finished)
    folder = finished.workdir / workdir_files.SALIENCY_MAPS
    folder.mkdir(exist_ok=True)
    before = {*folder.glob("*.jpg")}
    fetch = image_fetch(held_out, finished.run.preprocessing)
    entries: list[dict[str, Any]] = []
    order = np.concatenate(groups)
    finished.progress.start("drawing maps", len(order))
    for first in range(0, len(order), _BATCH):
        rows = order[first : first + _BATCH]
        images = fetch(np.resize(rows, _BATCH))["image"]
        predicted = known.probabilities[np.resize(rows, _BATCH)].argmax(-1)
        maps = np.asarray(maps_of(jnp.asarray(images), jnp.asarray(predicted)))
        for place, row in enumerate(rows):
            right = first + place >= len(groups[0])
            path = _path(folder, first + place, right)
            write_overlay(path, images[place], maps[place])
            entries.append(
                {
                    "image": path.name,
                    "name": known.names[row],
                    "label": known.class_names[known.labels[row]],
                    "predicted": known.class_names[predicted[place]],
                    "confidence": float(known.probabilities[row].max()),
                    "method": method,
                }
            )
            finished.progress.advance(1)
    finished.progress.finish()
    for path in before - {folder / entry["image"] for entry in entries}:
        path.unlink()
    return entries


def _path(folder: Path, index: int, right: bool) -> Path:
    return folder / f"{index + 1:02}-{'right' if right else 'mistake'}.jpg"
