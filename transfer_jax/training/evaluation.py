"""Predictions of a model."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.tasks import Task
from transfer_jax.tasks.top_predictions import TopPredictions
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.phase_step import EvalStep


def predict(
    eval_step: EvalStep, arrays: Arrays, batches: Iterable[Mapping[str, Any]], task: Task
) -> np.ndarray:
    """Returns the predictions of all images, `(images, columns)`, in order; see `Task.predictions`.

    Args:
        eval_step: The compiled forward pass.
        arrays: All arrays of the model.
        batches: Batches of images or features; images whose `mask` is False fill a batch and are left out.
        task: The task.
    """
    return task.predictions(np.concatenate([*outputs(eval_step, arrays, batches)]))


def outputs(
    eval_step: EvalStep, arrays: Arrays, batches: Iterable[Mapping[str, Any]]
) -> Iterator[np.ndarray]:
    """Yields the outputs of the head for one batch after the other, `(images, outputs)`; see `predict`."""
    for batch in batches:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        found = np.asarray(jax.device_get(eval_step(arrays, inputs)))
        yield found[np.asarray(batch["mask"])]


def predict_top(top_step: EvalStep, arrays: Arrays, batches: Iterable[Mapping[str, Any]]) -> TopPredictions:
    """Returns the most probable classes of all images, in order; only these leave the devices.

    Args:
        top_step: The compiled result of `make_top_step`.
        arrays: As for `predict`.
        batches: As for `predict`, with the `label` of each image.
    """
    found = []
    for batch in batches:
        inputs = {name: batch[name] for name in (*INPUTS, "label") if name in batch}
        fields = jax.device_get(top_step(arrays, inputs))
        found.append(TopPredictions(**fields)[np.asarray(batch["mask"])])
    return TopPredictions.join(found)
