"""One program with the outputs of several trained models, as ONNX or StableHLO."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.extras import require
from transfer_jax.models import Preprocessing
from transfer_jax.models.shared_trunk import SharedTrunk
from transfer_jax.storage.atomic_write import write_atomically, write_text
from transfer_jax.storage.workdir_files import check_not_of_run
from transfer_jax.tasks import Task
from transfer_jax.weights.check_image import FORMULA, check_image
from transfer_jax.weights.export import PLATFORMS
from transfer_jax.weights.export_record import KEY, TOLERANCE, Input, file_beside
from transfer_jax.weights.program_outputs import Output, program_outputs

SUFFIXES = (".onnx", ".stablehlo")
"""The endings of the files, which say their format."""


def write_shared_program(
    trunk: SharedTrunk,
    preprocessing: Preprocessing,
    tasks: Mapping[str, Task],
    out: Path,
    *,
    values: Input = "float32",
    output: Output = "logits",
) -> dict[str, Any]:
    """Writes a program that maps images to the outputs of each model by name, for any batch size.

    The record has the input, the preprocessing, the tasks and the outputs for a fixed image. It is in the
    metadata of an ONNX file, and in a `.json` file beside one of StableHLO.

    Args:
        trunk: The models.
        preprocessing: Their preprocessing.
        tasks: Their tasks by name.
        out: The file, `*.onnx` or `*.stablehlo`.
        values: The input: pixels in 0..255 as `float32` or `uint8`, or `normalized` images.
        output: The outputs: `logits` or `predictions`.

    Returns:
        The record.

    Raises:
        ValueError: If the file has another ending, or is a file that a run is read from.
        ImportError: If a required package is not installed.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"a program of several models must end in {' or '.join(SUFFIXES)}, got {out}")
    for path in (out, file_beside(out)):
        check_not_of_run(path)
    arrays, size = jax.device_get(trunk.arrays), preprocessing.image_size

    def outputs(images: jax.Array) -> dict[str, jax.Array]:
        x = images if values == "normalized" else preprocessing.normalize(images)
        found = trunk(arrays, x)
        return {name: program_outputs(tasks[name], each, output) for name, each in found.items()}

    dtype = jnp.dtype("uint8" if values == "uint8" else "float32")
    pixels = check_image(size)
    checked = pixels.astype(dtype) if values != "normalized" else preprocessing.normalize(jnp.asarray(pixels))
    with jax.default_matmul_precision("highest"):
        expected = jax.device_get(jax.jit(outputs)(jnp.asarray(checked)))
    record = {
        "input": {
            "shape": ["b", size, size, 3],
            "dtype": dtype.name,
            "values": "normalized" if values == "normalized" else "pixels",
        },
        "preprocessing": dataclasses.asdict(preprocessing),
        "output": output,
        "tasks": {name: task.to_json() for name, task in tasks.items()},
        "check": {
            "image": FORMULA,
            "outputs": {name: np.asarray(each[0]).tolist() for name, each in expected.items()},
            "tolerance": {name: TOLERANCE * float(np.abs(each).max()) for name, each in expected.items()},
        },
    }
    text = json.dumps(record)
    if out.suffix == ".onnx":
        require("onnx")
        from transfer_jax.weights.onnx_program import onnx_program

        source = "images" if values == "normalized" else "pixels"
        content = onnx_program(
            outputs, (size, size, 3), dtype=dtype, names=(source, ""), metadata={KEY: text}
        )
    else:
        require("flatbuffers")
        from jax import export

        (batch,) = export.symbolic_shape("b")
        images = jax.ShapeDtypeStruct((batch, size, size, 3), dtype)
        content = bytes(export.export(jax.jit(outputs), platforms=PLATFORMS)(images).serialize())
    write_atomically(out, lambda file: file.write(content))
    if out.suffix != ".onnx":
        write_text(file_beside(out), text)
    return record
