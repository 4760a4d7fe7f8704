"""Writes a trained model for other libraries and runtimes."""

import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from transfer_jax.files import write_atomically
from transfer_jax.models.functional import merge, split
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.naming import to_library
from transfer_jax.weights.saved import SavedModel

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What an exported program runs on."""
_NPZ = ("vision_transformer", "big_vision", "big_transfer")
"""Libraries that read `.npz` files."""


def targets(model: str) -> tuple[str, ...]:
    """What `export_model` can write a network as."""
    return (*family_of(model).namings, "safetensors", "stablehlo")


def suffix(target: str) -> str:
    """How the name of a file for a target ends."""
    return ".stablehlo" if target == "stablehlo" else ".npz" if target in _NPZ else ".safetensors"


def export_model(directory: Path, target: str, out: Path) -> Path:
    """Writes a trained model as another library, or a runtime, reads it.

    Args:
        directory: What `fit` wrote.
        target: The name of a library writes the parameters and statistics as safetensors (Google's as
            `.npz`) in its names and layouts, to be loaded strictly into its network with as many classes.
            `safetensors` writes them in our own. `stablehlo` writes a program for `jax.export.deserialize`,
            from pixels `(b, image_size, image_size, 3)` in 0..255, float32, to logits `(b, classes)`, for any
            `b` and any of `PLATFORMS`.
        out: The file to write.

    Returns:
        The file.

    Raises:
        ValueError: If the network cannot be written as that; the choices are named.
        FileNotFoundError: If there is no trained model, or no folder to write to.
    """
    saved, model = SavedModel.load(directory)
    if target not in targets(saved.model):
        raise ValueError(f"{saved.model} cannot be written as {target!r}; choose from {targets(saved.model)}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: there is no folder {out.parent}")
    graphdef, params, stats = split(model)
    arrays = {path: np.asarray(array) for path, array in {**params, **stats}.items()}
    if target == "stablehlo":
        content = _program(saved, graphdef, arrays)
    elif target == "safetensors":
        content = save(arrays, {"model": saved.model})
    else:
        _check_head(saved, target)
        content = _file(to_library(saved.model, arrays, target), target)
    write_atomically(out, lambda file: file.write(content))
    return out


def _file(arrays: dict[str, np.ndarray], target: str) -> bytes:
    if target in _NPZ:
        content = io.BytesIO()
        np.savez(content, **arrays)  # pyright: ignore[reportArgumentType]
        return content.getvalue()
    return save(arrays, {"format": "pt"})


def _check_head(saved: SavedModel, target: str) -> None:
    wanted = variant_of(saved.model).hidden
    if saved.hidden != wanted:
        raise ValueError(
            f"the {saved.model} of {target} has hidden layers {wanted} in its classifier, this one has "
            f"{saved.hidden}; train with hidden={wanted}, or export as safetensors or stablehlo"
        )


def _program(saved: SavedModel, graphdef: Any, arrays: Any) -> bytes:
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise ImportError("exporting as stablehlo needs flatbuffers: pip install flatbuffers") from error
    from jax import export

    def logits(pixels: jax.Array) -> jax.Array:
        return merge(graphdef, arrays)(saved.preprocessing.normalize(pixels))

    (batch,) = export.symbolic_shape("b")
    size = saved.preprocessing.image_size
    pixels = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    return bytes(export.export(jax.jit(logits), platforms=PLATFORMS)(pixels).serialize())
