"""The record of an exported file: the call that loads it, its input, its classes, and a check value."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.weights.check_image import FORMULA, check_image
from transfer_jax.weights.constructors import Constructor
from transfer_jax.weights.program_outputs import Output, program_outputs
from transfer_jax.weights.saved_model import SavedModel

KEY = "transfer_jax"
"""The entry of a file's metadata that has the record, as JSON."""
TOLERANCE = 1e-4
"""The largest difference of outputs that passes, relative to the largest output."""
Input = Literal["float32", "uint8", "normalized"]
"""The input of a program: pixels in 0..255 as float32 or uint8, or normalized images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """The record of an exported file.

    Attributes:
        target: The library, or the format of the program.
        model: Name of the network in this package.
        load: Python code that assigns the network of the library to `model`; the current folder is that of
            the file. Empty if the network's name in the library is unknown.
        module: Module that must be installed for it.
        runtime: Kind of the object `model`; see `Constructor`.
        note: A sentence on differences from the network here; empty if it computes the same.
        shape: Shape of the input; the batch is `b`.
        dtype: Dtype of the input.
        values: Values of the input: `normalized` images, or `pixels` in 0..255.
        output: `logits`, or `predictions`.
        task: The task, with the classes in `names`; see `Task.to_json`.
        preprocessing: The preprocessing of the images.
        outputs: Outputs for the image of `FORMULA`, `(outputs,)`.
    """

    target: str
    model: str
    load: str
    module: str
    runtime: str
    note: str
    shape: tuple[str | int, ...]
    dtype: str
    values: Literal["normalized", "pixels"]
    output: Output
    task: dict[str, Any]
    preprocessing: Preprocessing
    outputs: tuple[float, ...]

    @property
    def tolerance(self) -> float:
        """The largest difference of an output that passes."""
        return TOLERANCE * max(abs(value) for value in self.outputs)

    def images(self) -> np.ndarray:
        """Returns the input of the check, for the network of the library."""
        pixels = check_image(self.preprocessing.image_size)
        if self.values == "pixels":
            images = pixels.astype(self.dtype)
        else:
            images = np.asarray(self.preprocessing.normalize(jnp.asarray(pixels)))
        return images.transpose(0, 3, 1, 2).copy() if self.shape[1] == 3 else images

    def to_json(self) -> str:
        """Returns the record as the JSON that is stored with the file."""
        check = {"image": FORMULA, "outputs": self.outputs, "tolerance": self.tolerance}
        values = {
            **{name: getattr(self, name) for name in ("target", "model", "load", "module", "note")},
            "input": {"shape": self.shape, "dtype": self.dtype, "values": self.values},
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "output": self.output,
            "classes": self.task["names"],
            "task": self.task,
            "check": check,
        }
        return json.dumps(values)

    def lines(self) -> list[str]:
        """Returns the record as lines for a person."""
        classes = list(self.task["names"])
        shown = ", ".join(classes[:10]) + (f" and {len(classes) - 10:,} more" if len(classes) > 10 else "")
        code = [f"    {line}".rstrip() for line in self.load.split("\n")] if self.load else []
        if not code:
            code = [f"    (the name of this network in {self.target} is unknown)"]
        notes = [self.note] if self.note else []
        return [
            "Load it with:",
            *code,
            f"Input: {self.dtype} ({', '.join(map(str, self.shape))}), {_values_text(self)}",
            f"Images: {_resize_text(self.preprocessing)}",
            f"Output: {self.output} of {shown}",
            *notes,
        ]


def record_of(
    target: str,
    saved: SavedModel,
    model: Classifier,
    constructor: Constructor,
    *,
    values: Input = "normalized",
    output: Output = "logits",
) -> ExportRecord:
    """Returns the record of a model.

    Args:
        target: The library, or the format of the program.
        saved: The description of the model.
        model: The model in inference mode.
        constructor: The code that loads it.
        values: The input of the network.
        output: The output of the network.
    """
    size = saved.preprocessing.image_size
    return ExportRecord(
        target=target,
        model=saved.model,
        load=constructor.code,
        module=constructor.module,
        runtime=constructor.runtime,
        note=constructor.note,
        shape=("b", 3, size, size) if constructor.channels_first else ("b", size, size, 3),
        dtype="uint8" if values == "uint8" else "float32",
        values="normalized" if values == "normalized" else "pixels",
        output=output,
        task=saved.task.to_json(),
        preprocessing=saved.preprocessing,
        outputs=_check_outputs(saved, model, output),
    )


def file_beside(out: Path) -> Path:
    """Returns the JSON file with the record of a file whose format has no metadata."""
    return out.with_name(f"{out.name}.json")


def _check_outputs(saved: SavedModel, model: Classifier, output: Output) -> tuple[float, ...]:
    """Returns the outputs for the image of the check, in full float32 precision."""
    graphdef, params, stats = split(model)

    @jax.jit
    def run(arrays: dict[str, jax.Array], pixels: jax.Array) -> jax.Array:
        found = merge(graphdef, arrays)(saved.preprocessing.normalize(pixels))
        return program_outputs(saved.task, found, output)

    with jax.default_matmul_precision("highest"):
        found = run({**params, **stats}, check_image(saved.preprocessing.image_size))
    return tuple(np.asarray(found, np.float32)[0].tolist())


def _values_text(record: ExportRecord) -> str:
    expected = record.preprocessing
    if record.values == "pixels":
        return "RGB pixels in 0..255"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (expected.mean, expected.std))
    order = ", then BGR" if expected.channel_order == "bgr" else ""
    return f"RGB pixels in 0..255, minus ({mean}), divided by ({std}){order}"


def _resize_text(expected: Preprocessing) -> str:
    part = "the central square"
    if expected.crop_fraction < 1:
        part += f" of {expected.crop_fraction:.4g} of the shorter side"
    size = expected.image_size
    return f"{part}, resized to {size} x {size} pixels ({expected.interpolation}, antialiased)"
