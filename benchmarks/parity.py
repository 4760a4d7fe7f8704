"""Do our networks compute the same as those of other libraries?

    python benchmarks/parity.py --match "resnet*" --library timm --out parity.json

Builds each network in the other library with random weights and randomized running statistics, loads its
arrays into ours by their names, and compares the output of every block and the logits, in float32, at the
native and at an odd image size. The error is the largest difference relative to the largest value. Then it
exports ours, loads it strictly into the other library, and compares the parameters bit for bit.
"""

import argparse
import datetime
import fnmatch
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from contest import print_rows, write_report
from flax import nnx
from originals import CLASSES, ORIGINALS
from rich.progress import track

from transfer_jax.models import Classifier, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.key_mapping import BOOKKEEPING, KeyMap, to_library
from transfer_jax.weights.loading import load_arrays
from transfer_jax.weights.specs import WeightsSpec

LIMIT = 1e-4
PACKAGES = ("jax", "torch", "torchvision", "timm", "transformers", "keras")


def ours(model: Classifier, pixels: np.ndarray) -> dict[str, jax.Array]:
    """Returns the outputs of our blocks, and the `logits`.

    Each block is its own program, which blocks of the same structure share, because networks are deep and
    most of the time is compile time.
    """
    x, found = jax.numpy.asarray(pixels), {}
    for block in model.backbone.block_names:
        x = found[block] = _run(*nnx.split(getattr(model.backbone, block)), x)
    return {**found, "logits": _run(*nnx.split(model.head), x)}


@functools.partial(jax.jit, static_argnums=0)
def _run(graphdef: nnx.GraphDef, state: nnx.State, x: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, state)(x)


def has_head(name: str, library: str, state: Mapping[str, np.ndarray]) -> bool:
    """Returns whether ours can load the network's classifier; Keras's VGG has it at one size only."""
    keys = KeyMap(name, library).keys("head/classifier/kernel")
    return bool(keys) and all(key in state for key in keys)


def loaded(name: str, library: str, state: Mapping[str, np.ndarray], size: int) -> Classifier:
    """Returns our network with the arrays of theirs, and with their classifier if it fits."""
    original, variant = ORIGINALS[name, library], variant_of(name)
    model = create_model(name, CLASSES, hidden=variant.hidden, image_size=size, abstract_backbone=True)
    spec = WeightsSpec(name=name, model=name, address="", preprocessing=variant.preprocessing)
    skip = (original.ignore,) if original.ignore else ()
    load_arrays(model, state, spec, head=has_head(name, library, state), skip=skip)
    model.eval()
    return model


def compare(name: str, library: str, size: int, *, back: bool) -> dict[str, float]:
    """Returns the largest difference of each block, relative to its largest value; `back` checks the export.

    Raises:
        RuntimeError, AssertionError: As `check_round_trip`.
    """
    original = ORIGINALS[name, library]
    network = original.randomized(name, size)
    state = original.state(network)
    model = loaded(name, library, state, size)
    pixels = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    modules = {block: original.module(name, block) for block in model.backbone.block_names}
    expected = original.outputs(
        network, pixels, {block: module for block, module in modules.items() if module}
    )
    if not has_head(name, library, state):
        expected.pop("logits", None)  # of a classifier that ours cannot load
    found = ours(model, pixels)
    errors = {block: error(found[block], wanted) for block, wanted in expected.items()}
    del expected, found  # the largest networks need the memory
    if back:
        check_round_trip(name, library, network, model, state)
    return errors


def check_round_trip(
    name: str, library: str, network: Any, model: Classifier, state: Mapping[str, np.ndarray]
) -> None:
    """Exports ours and loads it strictly into theirs: the same arrays, bit for bit.

    Raises:
        RuntimeError: If the other library reports a missing or an unexpected key.
        AssertionError: If an array differs.
    """
    original, headed = ORIGINALS[name, library], has_head(name, library, state)
    _, params, stats = split(model)
    arrays = {
        path: np.asarray(array)
        for path, array in {**params, **stats}.items()
        if headed or not path.startswith("head/")
    }
    written = to_library(name, arrays, library)
    for key, value in state.items():
        if BOOKKEEPING.search(key) or (original.ignore and re.search(original.ignore, key)):
            assert key not in written, key
            written[key] = value
    after = original.state(original.load(network, written))
    assert after.keys() == state.keys()
    for key, value in after.items():
        assert value.dtype == state[key].dtype, key
        assert value.tobytes() == state[key].tobytes(), key


def error(found: jax.Array, wanted: np.ndarray) -> float:
    """Returns the largest relative difference, over the last channels if theirs has fewer."""
    if found.ndim == wanted.ndim:
        found = found[..., -wanted.shape[-1] :]
    return float(np.abs(found - wanted.reshape(found.shape)).max() / np.abs(wanted).max())


def sizes(name: str, library: str) -> tuple[int, int]:
    """Returns the native size and an odd one: no multiple of the strides, but of the patches, if any."""
    variant = variant_of(name)
    native = variant.preprocessing.image_size
    odd = native * 3 // 4 - 3
    return native, ORIGINALS[name, library].odd or odd - odd % getattr(variant.shape, "patch", 1)


def row(name: str, library: str) -> dict[str, str]:
    """Returns the results of the comparison of a network with that of a library."""
    found = {"network": name, "library": library, "native size": "", "odd size": "", "round trip": ""}
    try:
        for column, size in zip(("native size", "odd size"), sizes(name, library), strict=True):
            errors = compare(name, library, size, back=column == "native size")
            worst = max(errors, key=errors.__getitem__)
            found[column] = f"{errors[worst]:.1e} ({worst})"
        found["round trip"] = "bitwise"
    except Exception as error:  # continue with the other networks
        found["round trip"] = f"{type(error).__name__}: {error}".splitlines()[0]
    jax.clear_caches()
    return found


def passed(found: Mapping[str, str]) -> bool:
    """Returns whether all comparisons are equal."""
    errors = [float(found[column].split()[0]) for column in ("native size", "odd size") if found[column]]
    return found["round trip"] == "bitwise" and max(errors) <= LIMIT


def parameters(case: tuple[str, str]) -> int:
    """Returns the size of a network, so that small ones come first."""
    _, params, _ = split(create_model(case[0], CLASSES, abstract_backbone=True, abstract_head=True))
    return sum(array.size for array in params.values())


def by_family(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Returns a row for each family: by library, the number of equal networks, and the largest error."""
    libraries = sorted({found["library"] for found in rows})
    cells: dict[str, dict[str, list[Mapping[str, str]]]] = {}
    for found in rows:
        of_family = cells.setdefault(family_of(found["network"]).name, {})
        of_family.setdefault(found["library"], []).append(found)
    return [
        {"family": family, **{library: _cell(of_family.get(library, [])) for library in libraries}}
        for family, of_family in sorted(cells.items())
    ]


def _cell(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    errors = [found[column].split()[0] for found in rows for column in ("native size", "odd size")]
    equal = sum(passed(found) for found in rows)
    count = f"{equal}" if equal == len(rows) else f"{equal} of {len(rows)}"
    return f"{count}: {max((error for error in errors if error), key=float, default='failed')}"


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns rows as a table for the docs."""
    columns = [*rows[0]]
    lines = [columns, ["---"] * len(columns), *([found[column] for column in columns] for found in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--match", nargs="+", default=["*"], metavar="PATTERN", help="shell patterns of the networks"
    )
    parser.add_argument(
        "--library", choices=sorted({library for _, library in ORIGINALS}), help="one library"
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file, written after each network; networks in it are skipped"
    )
    parser.add_argument("--markdown", type=Path, help="file to write the table of families and libraries to")
    arguments = parser.parse_args()
    title = f"Relative error against other libraries, {datetime.date.today()}"
    names = sorted({name for name, library in ORIGINALS if arguments.library in (None, library)})
    for pattern in arguments.match:
        if not fnmatch.filter(names, pattern):
            parser.error(f"no network matches --match {pattern!r}; there are {', '.join(names)}")
    chosen = {name for pattern in arguments.match for name in fnmatch.filter(names, pattern)}
    cases = [
        (name, library)
        for name, library in ORIGINALS
        if name in chosen and arguments.library in (None, library)
    ]
    cases.sort(key=parameters)
    found = []
    if arguments.out and arguments.out.exists():
        found = json.loads(arguments.out.read_text())["rows"]
    done = {(each["network"], each["library"]) for each in found}
    for case in track([case for case in cases if case not in done], "Comparing"):
        found.append(row(*case))
        if arguments.out:
            write_report(title, found, arguments.out, packages=PACKAGES)
    found = [each for each in found if (each["network"], each["library"]) in cases]
    print_rows(title, found)
    print_rows("Networks that are equal, and the largest error", by_family(found))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(by_family(found)))
    raise SystemExit(not all(map(passed, found)))


if __name__ == "__main__":
    main()
