"""The frozen prefix in int8: its kernels, calibrated on training images, and the error of its features."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.data import image_fetch
from transfer_jax.features import model_inputs, prefix_arrays
from transfer_jax.models.flat_arrays import Arrays, cast, cast_floats, merge
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.int8 import Inputs, Int8Kernel, observed, quantize
from transfer_jax.training.compile import compile_function
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.input_shapes import input_shapes
from transfer_jax.training.run import Run

CALIBRATION_IMAGES = 64
_BATCH = 32
Observe = Callable[[Arrays, Mapping[str, Any]], tuple[dict[str, Inputs], Any]]


@dataclasses.dataclass(frozen=True)
class Int8Prefix:
    """The kernels of a frozen prefix in int8.

    Attributes:
        kernels: The kernels by path.
        error: Root mean square of the error of the features at the boundary, divided by that of the features.
        images: Number of training images that it was calibrated on.
    """

    kernels: dict[str, Int8Kernel]
    error: float
    images: int

    def __str__(self) -> str:
        return (
            f"{len(self.kernels)} layers of the frozen part compute in int8: the features of {self.images} "
            f"training images are off by {self.error:.2%} (RMS)"
        )


def calibrate(run: Run, boundary: str, arrays: Arrays) -> Int8Prefix:
    """Returns the kernels up to a boundary in int8, calibrated on some training images.

    Convolutions in groups, layers on fewer than 16 channels and layers on pooled features are left out. All
    processes of a run calibrate on the same images.

    Args:
        run: The run.
        boundary: End of the frozen prefix.
        arrays: All arrays of the model, on the devices of this process.

    Raises:
        ValueError: If the prefix has no layer that can be computed in int8.
    """
    images = run.train.subset(calibration_rows(run))
    fetch, size = image_fetch(images.in_pieces(), run.preprocessing), min(_BATCH, len(images))
    rows = [np.arange(at, at + size) % len(images) for at in range(0, len(images), size)]
    batches = [{name: value for name, value in fetch(each).items() if name in INPUTS} for each in rows]
    observe = _compiled(_observing(run.graphdef, run.preprocessing, boundary), arrays, batches[0])
    inputs, features = None, []
    for batch in batches:
        found, exact = observe(arrays, batch)
        if inputs is not None:
            found = {path: each.joined(inputs[path]) for path, each in found.items()}
        inputs = found
        features.append(exact)
    kernels = _quantized(run, boundary, arrays, inputs or {})
    compute = _prefix(run.graphdef, run.preprocessing, boundary)
    approximate = _compiled(compute, {**arrays, **kernels}, batches[0])
    wrong, whole = 0.0, 0.0
    for batch, exact in zip(batches, features, strict=True):
        error = jax.tree.map(jnp.subtract, approximate({**arrays, **kernels}, batch), exact)
        wrong, whole = wrong + _square(error), whole + _square(exact)
    return Int8Prefix(kernels, float(np.sqrt(wrong / max(whole, 1e-30))), len(images))


def calibration_rows(run: Run) -> np.ndarray:
    """Returns the positions of the training images that a run calibrates on."""
    count = len(run.train)
    return np.unique(np.linspace(0, count - 1, min(count, CALIBRATION_IMAGES)).astype(int))


def int8_shapes(run: Run, boundary: str, arrays: Arrays) -> dict[str, Int8Kernel]:
    """Returns the shapes of the kernels that `calibrate` returns, for arrays or their shapes."""
    observe = _observing(run.graphdef, run.preprocessing, boundary)
    inputs, _ = jax.eval_shape(observe, dict(arrays), input_shapes(run, 1))
    return jax.eval_shape(lambda arrays, inputs: _quantized(run, boundary, arrays, inputs), arrays, inputs)


def _observing(graphdef: nnx.GraphDef, preprocessing: Preprocessing, boundary: str) -> Observe:
    """Returns the function from arrays and a batch to the inputs of the layers by path, and the features."""

    def observe(arrays: Arrays, batch: Mapping[str, Any]) -> tuple[dict[str, Inputs], Any]:
        model = merge(graphdef, cast(arrays, jnp.float32))
        names = {id(module): "/".join(map(str, path)) for path, module in nnx.iter_modules(model)}
        with observed() as found:
            x = model.backbone(cast_floats(model_inputs(preprocessing, batch), jnp.float32), stop=boundary)
        return {f"{names[layer]}/kernel": inputs for layer, inputs in found.items()}, x

    return observe


def _prefix(graphdef: nnx.GraphDef, preprocessing: Preprocessing, boundary: str) -> Callable[..., Any]:
    def features(arrays: Arrays, batch: Mapping[str, Any]) -> Any:
        x = cast_floats(model_inputs(preprocessing, batch), jnp.float32)
        return merge(graphdef, cast(arrays, jnp.float32)).backbone(x, stop=boundary)

    return features


def _quantized(
    run: Run, boundary: str, arrays: Arrays, inputs: Mapping[str, Inputs]
) -> dict[str, Int8Kernel]:
    below = prefix_arrays(arrays, boundary, run.block_names)
    found = {path: each for path, each in inputs.items() if path in below}
    if not found:
        raise ValueError(
            f"prefix_precision='int8': no layer of {run.config.model} up to {boundary!r} can be computed in "
            "int8; choose 'bfloat16' or 'auto'"
        )
    return {path: jax.jit(quantize)(below[path], each) for path, each in found.items()}


def _compiled(
    function: Callable[..., Any], arrays: Mapping[str, Any], batch: Mapping[str, Any]
) -> Callable[..., Any]:
    return compile_function(function, arrays, batch).run


def _square(tree: Any) -> float:
    return sum(float(jnp.vdot(x, x)) for x in jax.tree.leaves(tree))
