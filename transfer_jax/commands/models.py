"""The commands about networks and weight files: `transfer-jax models | inspect | export`."""

import fnmatch
import math
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import tyro

from transfer_jax.models import create_model, model_names
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import FAMILIES, variant_of
from transfer_jax.nn.flops import multiply_adds
from transfer_jax.report.console import BARS, CONSOLE, OUT, table
from transfer_jax.weights import WeightsSpec, hub, specs
from transfer_jax.weights.export import export_model, suffix
from transfer_jax.weights.identify import closest_families, matching_models
from transfer_jax.weights.readers import read_weights


def models(match: str = "*", weights: bool = False) -> None:
    """List the networks, and the weights that are known for them.

    Args:
        match: Shell pattern of the names.
        weights: List every set of weights, too.
    """
    names = fnmatch.filter(model_names(), match)
    if not names:
        families = (family.name for family in FAMILIES)
        raise ValueError(f"no model matches {match!r}; the families are {', '.join(families)}")
    sets: dict[str, list[WeightsSpec]] = {name: [] for name in names}
    for spec in specs():
        if spec.model in sets:
            sets[spec.model].append(spec)
    rows = []
    BARS.start("counting parameters and operations", len(names))
    for name in names:
        size = variant_of(name).preprocessing.image_size
        parameters, operations = _cost(name, size)
        rows.append([name, f"{parameters:,}", f"{operations / 1e9:.2f}", str(size), str(len(sets[name]))])
        BARS.advance(1)
    BARS.finish()
    OUT.print(table("Networks", ("name", "backbone", "GFLOPs", "pixels", "weights"), rows))
    if weights:
        found = [_weights_row(spec) for name in names for spec in sets[name]]
        OUT.print(table("Weights", ("name", "top-1", "pixels", "licence", "file"), found))
    else:
        OUT.print("GFLOPs count a multiply-add as one, as papers do. --weights lists the sets of weights.")


def _cost(name: str, size: int) -> tuple[int, int]:
    """Parameters of a backbone, and multiply-adds of the network with the classifier that it is known for."""
    model = create_model(
        name, 1000, hidden=variant_of(name).hidden, abstract_backbone=True, abstract_head=True
    )
    model.eval()
    graphdef, params, stats = split(model)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    operations = multiply_adds(lambda arrays, x: merge(graphdef, arrays)(x), {**params, **stats}, image)
    return sum(x.size for path, x in params.items() if path.startswith("backbone/")), operations


def _weights_row(spec: WeightsSpec) -> list[str]:
    accuracy = "" if spec.accuracy is None else f"{spec.accuracy:.1f}"
    place = "here" if spec.present() else hub.install_hint(spec.address)
    return [spec.name, accuracy, str(spec.preprocessing.image_size), spec.licence or "unknown", place]


def inspect(
    file: Annotated[Path, tyro.conf.Positional],
    format: str | None = None,
    entry: str | None = None,
    keys: int = 20,
) -> None:
    """Say what a weight file is, executing nothing in it.

    Args:
        file: The file.
        format: One of the formats that are read; recognized by its first bytes, if not given.
        entry: Which of several state dicts in a PyTorch checkpoint.
        keys: How many arrays to list; 0 lists all.
    """
    infos = read_weights(file, format, entry=entry).infos
    count = sum(math.prod(info.shape) for info in infos.values())
    dtypes = ", ".join(sorted({info.dtype for info in infos.values()}))
    shown = list(infos.items())[: keys or None]
    rows = [[key, str(info.shape), info.dtype] for key, info in shown]
    OUT.print(f"{len(infos)} arrays, {count:,} values, {dtypes}", highlight=False)
    OUT.print(table(None, ("key", "shape", "dtype"), rows))
    if len(shown) < len(infos):
        OUT.print(f"… and {len(infos) - len(shown)} more; --keys 0 lists all")
    with CONSOLE.status("comparing with the known networks"):
        nearest = closest_families(infos)
        shapes = {key: info.shape for key, info in infos.items()}
        fitting, library = matching_models(shapes, nearest)
    if fitting:
        verdict = f"It fills {', '.join(fitting)}, in the names of {library}."
    elif nearest:
        verdict = f"It fills no network that is known; most like {', '.join(map(str, nearest))}."
    else:
        verdict = "It fills no network that is known, nor are its keys like those of any."
    OUT.print(verdict, highlight=False, markup=False)


def export(
    workdir: Annotated[Path, tyro.conf.Positional],
    to: str,
    out: Path | None = None,
) -> None:
    """Write a trained model for another library or runtime.

    Args:
        workdir: Folder of a finished run.
        to: A library that has the network (torchvision, timm …): safetensors in its names and layouts, or the
            kind of file that it reads, as Keras's .h5.
            Or `safetensors`: one in our own. Or `stablehlo` or `onnx`: a program that `jax.export`
            or onnxruntime reads.
        out: The file; `exported-…` in the folder of the run, if not given.
    """
    with CONSOLE.status(f"exporting to {to}"):
        written = export_model(workdir, to, out or workdir / f"exported-{to}{suffix(to)}")
    OUT.print(f"{written}: {written.stat().st_size / 2**20:,.1f} MiB", markup=False, highlight=False)
