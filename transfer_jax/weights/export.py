"""Writes a trained model for other libraries and runtimes."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from safetensors.numpy import save

from transfer_jax.extras import require
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.storage.atomic_write import write_atomically
from transfer_jax.storage.workdir_files import check_not_of_run
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.writers import file_kind, host_arrays

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""The platforms that an exported StableHLO program runs on."""
PROGRAMS = ("stablehlo", "onnx")
"""The formats of programs that run without this package."""


def targets(model: str) -> tuple[str, ...]:
    """Returns the targets of `export_model` for a network."""
    return (*family_of(model).layer_names, "safetensors", *PROGRAMS)


def suffix(target: str) -> str:
    """Returns the suffix of the files of a target, such as `.onnx`."""
    return f".{target}" if target in PROGRAMS else file_kind(target).suffix


def export_model(directory: Path, target: str, out: Path) -> Path:
    """Writes a trained model in the format of another library or of a runtime.

    Args:
        directory: A workdir of `fit`.
        target: The name of a library writes the parameters and statistics as safetensors (Google's as
            `.npz`, Keras's as `.h5`) in its names and layouts. The file loads strictly into its network with
            the same number of classes. `safetensors` writes the names and layouts of this package.
            `stablehlo` and `onnx` write a program from pixels `(b, image_size, image_size, 3)` in 0..255,
            float32, to logits `(b, classes)`, for any `b`: for `jax.export.deserialize` and any of
            `PLATFORMS`, or for onnxruntime and other runtimes.
        out: The file to write.

    Returns:
        The file.

    Raises:
        ValueError: If the target is unsupported for the network; the message names the choices. Also if the
            library does not read files with the name of `out`, or `out` is a file that a run is read from.
        ImportError: If a required package is not installed; the message has the command that installs it.
        FileNotFoundError: If there is no trained model, or if the folder of `out` does not exist.
    """
    saved, model = SavedModel.load(directory)
    if target not in targets(saved.model):
        raise ValueError(
            f"{target!r} is not supported for {saved.model}; choose from {', '.join(targets(saved.model))}"
        )
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: the folder {out.parent} does not exist; create it first")
    check_not_of_run(out)
    if target in PROGRAMS:
        content = _program(target, saved, model)
    elif target == "safetensors":
        content = save(host_arrays(model), {"model": saved.model})
    else:
        _check_head(saved, target)
        _check_name(out, target)
        content = file_kind(target).write(saved, model, target)
    write_atomically(out, lambda file: file.write(content))
    return out


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


def _program(target: str, saved: SavedModel, model: Classifier) -> bytes:
    graphdef, params, stats = split(model)
    arrays = jax.device_get({**params, **stats})

    def logits(pixels: jax.Array) -> jax.Array:
        return merge(graphdef, arrays)(saved.preprocessing.normalize(pixels))

    size = saved.preprocessing.image_size
    return (_onnx if target == "onnx" else _stablehlo)(logits, (size, size, 3))


def _stablehlo(logits: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> bytes:
    require("flatbuffers")

    from jax import export

    (batch,) = export.symbolic_shape("b")
    pixels = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return bytes(export.export(jax.jit(logits), platforms=PLATFORMS)(pixels).serialize())


def _onnx(logits: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> bytes:
    require("onnx")

    from transfer_jax.weights.onnx_program import onnx_program

    return onnx_program(logits, shape)
