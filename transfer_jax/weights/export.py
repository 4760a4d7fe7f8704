"""Writes a trained model for other libraries and runtimes."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from safetensors.numpy import save

from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.storage.atomic_write import write_atomically
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.writers import file_kind, host_arrays

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What an exported StableHLO program runs on."""
PROGRAMS = ("stablehlo", "onnx")
"""What a network can be written as that runs without this package."""


def targets(model: str) -> tuple[str, ...]:
    """What `export_model` can write a network as."""
    return (*family_of(model).layer_names, "safetensors", *PROGRAMS)


def suffix(target: str) -> str:
    """How the name of a file for a target ends."""
    return f".{target}" if target in PROGRAMS else file_kind(target).suffix


def export_model(directory: Path, target: str, out: Path) -> Path:
    """Writes a trained model as another library, or a runtime, reads it.

    Args:
        directory: What `fit` wrote.
        target: The name of a library writes the parameters and statistics as safetensors (Google's as
            `.npz`, Keras's as `.h5`) in its names and layouts, to be loaded strictly into its network with as
            many classes.
            `safetensors` writes them in our own. `stablehlo` and `onnx` write a program from pixels
            `(b, image_size, image_size, 3)` in 0..255, float32, to logits `(b, classes)`, for any `b`: for
            `jax.export.deserialize` and any of `PLATFORMS`, or for onnxruntime and others.
        out: The file to write.

    Returns:
        The file.

    Raises:
        ValueError: If the network cannot be written as that, the choices are named; or if the library would
            not read a file of that name.
        ImportError: If a package is needed that is not installed; the command that installs it is given.
        FileNotFoundError: If there is no trained model, or no folder to write to.
    """
    saved, model = SavedModel.load(directory)
    if target not in targets(saved.model):
        raise ValueError(f"{saved.model} cannot be written as {target!r}; choose from {targets(saved.model)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: there is no folder {out.parent}")
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
    wanted = variant_of(saved.model).hidden
    others = ", ".join(("safetensors", *PROGRAMS))
    if saved.taps:
        raise ValueError(
            f"the head of this model reads all blocks (taps), which {target} cannot; "
            f"export as one of {others}"
        )
    if saved.hidden != wanted:
        raise ValueError(
            f"the {saved.model} of {target} has hidden layers {wanted} in its classifier, this one has "
            f"{saved.hidden}; train with hidden={wanted}, or export as one of {others}"
        )


def _check_name(out: Path, target: str) -> None:
    """Keras takes the name of a file for what is in it."""
    if target == "keras" and (out.suffix != ".h5" or out.name.endswith(".weights.h5")):
        raise ValueError(
            f"{out.name}: Keras reads such a file if its name ends in .h5, but not in .weights.h5"
        )


def _program(target: str, saved: SavedModel, model: Classifier) -> bytes:
    graphdef, params, stats = split(model)
    arrays = jax.device_get({**params, **stats})

    def logits(pixels: jax.Array) -> jax.Array:
        return merge(graphdef, arrays)(saved.preprocessing.normalize(pixels))

    size = saved.preprocessing.image_size
    return (_onnx if target == "onnx" else _stablehlo)(logits, (size, size, 3))


def _stablehlo(logits: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> bytes:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ImportError("exporting as stablehlo needs flatbuffers: pip install flatbuffers") from error
    from jax import export

    (batch,) = export.symbolic_shape("b")
    pixels = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
    return bytes(export.export(jax.jit(logits), platforms=PLATFORMS)(pixels).serialize())


def _onnx(logits: Callable[[jax.Array], jax.Array], shape: tuple[int, ...]) -> bytes:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ImportError("exporting as onnx needs onnx: pip install onnx") from error
    from transfer_jax.weights.onnx_program import onnx_program

    return onnx_program(logits, shape)
