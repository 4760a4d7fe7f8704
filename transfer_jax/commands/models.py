"""The commands on networks and weight files: `transfer-jax models | inspect | export`."""

import fnmatch
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, CONSOLE, OUT, print_line, table

if TYPE_CHECKING:
    from transfer_jax.weights.specs import WeightsSpec


def models(match: str = "*", weights: bool = False) -> None:
    """Lists the networks and their weights.

    Args:
        match: Shell pattern of the names, such as `resnet*`.
        weights: Whether to list all weights too.
    """
    from transfer_jax.models.registry import FAMILIES, model_names, variant_of
    from transfer_jax.weights.specs import specs

    names = fnmatch.filter(model_names(), match)
    if not names:
        families = (family.name for family in FAMILIES)
        raise ValueError(f"no model matches {match!r}; the families are {', '.join(families)}")
    sets: dict[str, list[WeightsSpec]] = {name: [] for name in names}
    for spec in specs():
        if spec.model in sets:
            sets[spec.model].append(spec)
    rows = []
    BARS.start("counting parameters and FLOPs", len(names))
    for name in names:
        size = variant_of(name).preprocessing.image_size
        parameters, operations = _cost(name, size)
        rows.append([name, f"{parameters:,}", f"{operations / 1e9:.2f}", str(size), str(len(sets[name]))])
        BARS.advance(1)
    BARS.finish()
    columns = ("name", "parameters of the backbone", "GFLOPs", "pixels", "weights")
    OUT.print(table("Networks", columns, rows))
    if weights:
        found = [_weights_row(spec) for name in names for spec in sets[name]]
        OUT.print(table("Weights", ("name", "top-1 %", "pixels", "license", "file"), found))
    else:
        print_line(OUT, "GFLOPs count a multiply-add as one, as papers do. --weights lists all weights.")


def _cost(name: str, size: int) -> tuple[int, int]:
    """Returns the parameters of a backbone, and the multiply-adds of the network with its own classifier."""
    import jax
    import jax.numpy as jnp

    from transfer_jax.models.flat_arrays import merge, split
    from transfer_jax.models.registry import create_model, variant_of
    from transfer_jax.nn.flops import multiply_adds

    model = create_model(
        name, 1000, hidden=variant_of(name).hidden, abstract_backbone=True, abstract_head=True
    )
    model.eval()
    graphdef, params, stats = split(model)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    operations = multiply_adds(lambda arrays, x: merge(graphdef, arrays)(x), {**params, **stats}, image)
    return sum(x.size for path, x in params.items() if path.startswith("backbone/")), operations


def _weights_row(spec: "WeightsSpec") -> list[str]:
    from transfer_jax.weights import hub

    accuracy = "" if spec.accuracy is None else f"{spec.accuracy:.1f}"
    place = "here" if spec.present() else hub.install_hint(spec.address)
    return [spec.name, accuracy, str(spec.preprocessing.image_size), spec.licence or "unknown", place]


def inspect(
    file: Annotated[Path, tyro.conf.Positional],
    format: str | None = None,
    weights_entry: Annotated[str | None, tyro.conf.arg(aliases=["--entry"])] = None,
    keys: int = 20,
) -> None:
    """Lists the arrays of a weight file and the networks that they fit.

    Nothing in the file is executed.

    Args:
        file: The file, or a folder such as one of the Hugging Face hub.
        format: Its format; by default recognized by its first bytes.
        weights_entry: The part of the file to read if it has several: the name of a state dict, such as
            `state_dict_ema`, or the prefix of the keys, such as `teacher`.
        keys: Number of arrays to list; 0 lists all.
    """
    from transfer_jax.weights.identify import closest_families, matching_models
    from transfer_jax.weights.origin import recommendation
    from transfer_jax.weights.readers import read_weights

    weights = read_weights(file, format, entry=weights_entry)
    for note in weights.notes:
        print_line(OUT, note)
    infos = weights.infos
    count = sum(math.prod(info.shape) for info in infos.values())
    dtypes = ", ".join(sorted({info.dtype for info in infos.values()}))
    shown = list(infos.items())[: keys or None]
    rows = [[key, str(info.shape), info.dtype] for key, info in shown]
    print_line(OUT, f"{counted(len(infos), 'array')}, {counted(count, 'value')}, {dtypes}")
    OUT.print(table(None, ("key", "shape", "dtype"), rows))
    if len(shown) < len(infos):
        print_line(OUT, f"and {len(infos) - len(shown):,} more; --keys 0 lists all")
    with CONSOLE.status("comparing with the known networks"):
        nearest = closest_families(infos)
        shapes = {key: info.shape for key, info in infos.items()}
        fitting, library = matching_models(shapes, nearest)
        advice = recommendation(fitting, library, str(file), weights.metadata) if fitting else ""
    if fitting:
        verdict = f"It fits {', '.join(fitting)}, with the names of {library}. {advice}".strip()
    elif nearest:
        verdict = f"It fits no known network; the most similar are {', '.join(map(str, nearest))}."
    else:
        verdict = "It fits no known network, and its keys are not similar to those of any."
    print_line(OUT, verdict)


def export(
    workdir: Annotated[Path, tyro.conf.Positional],
    to: str,
    out: Path | None = None,
    input: Literal["float32", "uint8", "normalized"] | None = None,
    output: Literal["logits", "predictions"] = "logits",
    calibrated: bool = False,
    verify: bool = False,
    python: Path | None = None,
    also: tuple[Path, ...] = (),
) -> None:
    """Exports a trained model to another library or runtime.

    The call that loads the file, its input, its classes and a check value are printed, and are stored in the
    metadata of the file, or in a `.json` file beside it if its format has none.

    Args:
        workdir: Folder of a finished run.
        to: A library that has the network (torchvision, timm, ...): writes safetensors with its names and
            layouts, or the kind of file that it reads, such as Keras's .h5. Or `safetensors`: the names of
            this package. Or `stablehlo` or `onnx`: a program for `jax.export` or onnxruntime.
        out: The file; by default `exported-...` in the workdir.
        input: Input of a program, an RGB image of the size that is printed: `float32` (the default) or
            `uint8` pixels in 0..255, which the program normalizes, or `normalized` images.
        output: Output of a program: `logits`, or `predictions` (probabilities, or quantities in their units).
        calibrated: Whether to divide the logits by the temperature that the validation images of the run
            chose, so that the confidence of predictions agrees with their accuracy.
        verify: Whether to load the file in the library and to compare its outputs for a fixed image. A
            difference of more than 0.0001 of the largest output is an error.
        python: Python interpreter that has the library, for `--verify`; by default the one that runs this.
        also: Folders of more runs: one program (`onnx` or `stablehlo`) has an output for each run, with the
            name of its folder, and computes the blocks that they have in common once.
    """
    from transfer_jax.commands.predict_many import export_all
    from transfer_jax.weights.export import export_model, suffix
    from transfer_jax.weights.verify import verify_export

    if python is not None and not verify:
        raise ValueError("--python has no effect without --verify")
    if also:
        if verify:
            raise ValueError("--verify is for one run; with --also, the file has outputs to check it by")
        export_all((workdir, *also), to, out, values=input, output=output, calibrated=calibrated)
        return
    file = out or workdir / f"exported-{to}{suffix(to)}"
    with CONSOLE.status(f"exporting to {to}"):
        exported = export_model(workdir, to, file, values=input, output=output, calibrated=calibrated)
    print_line(OUT, f"{file}: {file.stat().st_size / 2**20:,.1f} MiB")
    for line in exported.record.lines():
        print_line(OUT, line)
    if verify:
        with CONSOLE.status(f"loading {file.name} with {exported.record.module}"):
            result = verify_export(file, exported.record, python)
        print_line(OUT, str(result))
