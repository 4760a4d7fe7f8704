"""Writes a trained model for other libraries and runtimes."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from safetensors.numpy import save

from transfer_jax.extras import require
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import variant_of
from transfer_jax.storage.atomic_write import write_atomically, write_text
from transfer_jax.storage.workdir_files import check_not_of_run
from transfer_jax.weights.constructors import PROGRAMS, Exported, constructor_of, targets
from transfer_jax.weights.export_record import KEY, ExportRecord, Input, file_beside, record_of
from transfer_jax.weights.program_outputs import Output, program_outputs
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.writers import file_kind, host_arrays

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""The platforms that an exported StableHLO program runs on."""


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        file: The file.
        record: Its record, which is also stored: in the metadata of safetensors and ONNX files, in the entry
            `transfer_jax`; beside files of other formats, in a file of the same name with `.json` added.
    """

    file: Path
    record: ExportRecord


def suffix(target: str) -> str:
    """Returns the suffix of the files of a target, such as `.onnx`."""
    return f".{target}" if target in PROGRAMS else file_kind(target).suffix


def export_model(
    directory: Path,
    target: str,
    out: Path,
    *,
    values: Input | None = None,
    output: Output = "logits",
    calibrated: bool = False,
) -> Export:
    """Writes a trained model in the format of another library or of a runtime.

    Args:
        directory: A workdir of `fit`.
        target: The name of a library writes the parameters and statistics as safetensors (Google's as
            `.npz`, Keras's as `.h5`) in its names and layouts. The file loads strictly into its network with
            the same number of classes. `safetensors` writes the names and layouts of this package.
            `stablehlo` and `onnx` write a program from images `(b, image_size, image_size, 3)` to outputs,
            for any `b`: for `jax.export.deserialize` and any of `PLATFORMS`, or for onnxruntime and other
            runtimes.
        out: The file to write.
        values: The input of a program: `float32` (the default) or `uint8` pixels in 0..255, which the program
            normalizes, or `normalized` images.
        output: The output of a program: `logits`, or `predictions` (probabilities of classes and labels,
            quantities in their units).
        calibrated: Divides the last layer by the temperature that the validation images of the run chose.

    Returns:
        The file and its record.

    Raises:
        ValueError: If the target is unsupported for the network; the message names the choices. Also if the
            library does not read files with the name of `out`, or `out` is a file that a run is read from.
        ImportError: If a required package is not installed; the message has the command that installs it.
        FileNotFoundError: If there is no trained model, or if the folder of `out` does not exist.
    """
    saved, model = SavedModel.load(directory, calibrated=calibrated)
    exported = Exported(
        model=saved.model,
        outputs=saved.task.outputs,
        image_size=saved.preprocessing.image_size,
        file=out.name,
        hidden=saved.hidden,
        taps=saved.taps,
    )
    constructor = constructor_of(target, exported) if target in targets(saved.model) else None
    if constructor is None:
        raise ValueError(
            f"{target!r} is not supported for {saved.model}; choose from {', '.join(targets(saved.model))}"
        )
    if target not in PROGRAMS and (values is not None or output != "logits"):
        raise ValueError(
            f"the input and the output are chosen only for {' and '.join(PROGRAMS)}; a file for {target} has "
            "the network's parameters, and its network takes normalized images and returns logits"
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: the folder {out.parent} does not exist; create it first")
    for path in (out, file_beside(out)):
        check_not_of_run(path)
    if target not in PROGRAMS:
        values = "normalized" if constructor.normalized else "float32"
        if target != "safetensors":
            _check_head(saved, target)
            _check_name(out, target)
    record = record_of(target, saved, model, constructor, values=values or "float32", output=output)
    _write(out, record, saved, model)
    return Export(out, record)


def _write(out: Path, record: ExportRecord, saved: SavedModel, model: Classifier) -> None:
    """Writes the file with the record in its metadata, or beside it."""
    target, metadata, beside = record.target, {KEY: record.to_json()}, False
    if target == "stablehlo":
        content, beside = _stablehlo(*_program(record, saved, model)), True
    elif target == "onnx":
        content = _onnx(*_program(record, saved, model), record, metadata)
    elif target == "safetensors":
        content = save(host_arrays(model), {"model": saved.model, **metadata})
    else:
        kind = file_kind(target)
        content, beside = kind.write(saved, model, target, metadata), not kind.has_metadata
    write_atomically(out, lambda file: file.write(content))
    if beside:
        write_text(file_beside(out), metadata[KEY])


def _check_head(saved: SavedModel, target: str) -> None:
    expected = variant_of(saved.model).hidden
    others = ", ".join(("safetensors", *PROGRAMS))
    if saved.taps:
        raise ValueError(
            f"the head of this model reads all blocks (taps), which is not supported in {target}; "
            f"choose from {others}"
        )
    if saved.hidden != expected:
        raise ValueError(
            f"the classifier of {saved.model} in {target} has the hidden layers {expected}, but "
            f"this model has {saved.hidden}; train with hidden={expected}, or choose from {others}"
        )


def _check_name(out: Path, target: str) -> None:
    """Raises `ValueError` for a name from which Keras would take the file for another format."""
    if target == "keras" and (out.suffix != ".h5" or out.name.endswith(".weights.h5")):
        raise ValueError(
            f"invalid file name {out.name}: for Keras, it must end in .h5 and not in .weights.h5"
        )


def _program(
    record: ExportRecord, saved: SavedModel, model: Classifier
) -> tuple[Callable[[jax.Array], jax.Array], jax.ShapeDtypeStruct]:
    """Returns the function of a program, and the shape and dtype of one image."""
    graphdef, params, stats = split(model)
    arrays = jax.device_get({**params, **stats})

    def function(images: jax.Array) -> jax.Array:
        if record.values == "pixels":
            images = saved.preprocessing.normalize(images)
        return program_outputs(saved.task, merge(graphdef, arrays)(images), record.output)

    size = saved.preprocessing.image_size
    return function, jax.ShapeDtypeStruct((size, size, 3), jnp.dtype(record.dtype))


def _stablehlo(function: Callable[[jax.Array], jax.Array], image: jax.ShapeDtypeStruct) -> bytes:
    require("flatbuffers")

    from jax import export

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *image.shape), image.dtype)
    return bytes(export.export(jax.jit(function), platforms=PLATFORMS)(images).serialize())


def _onnx(
    function: Callable[[jax.Array], jax.Array],
    image: jax.ShapeDtypeStruct,
    record: ExportRecord,
    metadata: dict[str, str],
) -> bytes:
    require("onnx")

    from transfer_jax.weights.onnx_program import onnx_program

    names = ("pixels" if record.values == "pixels" else "images", record.output)
    return onnx_program(function, image.shape, dtype=record.dtype, names=names, metadata=metadata)
