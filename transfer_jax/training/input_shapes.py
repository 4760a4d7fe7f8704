"""The shapes of the inputs of a run's network."""

from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.training.run import Run


def input_shapes(run: Run, count: int) -> dict[str, Any]:
    """Returns the shapes and dtypes of a batch: of `image` before normalization, or of other `inputs`."""
    if run.train.inputs is None:
        side = run.preprocessing.image_size
        return {"image": jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8)}
    return {
        "inputs": {
            name: jax.ShapeDtypeStruct((count, *each.shape), each.dtype)
            for name, each in run.train.inputs.items()
        }
    }
