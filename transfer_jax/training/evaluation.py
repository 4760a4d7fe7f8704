"""Predictions of a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.tasks import Task
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
    found = []
    for batch in batches:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        outputs = np.asarray(jax.device_get(eval_step(arrays, inputs)))
        found.append(outputs[np.asarray(batch["mask"])])
    return task.predictions(np.concatenate(found))
