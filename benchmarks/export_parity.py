"""Do exported files compute the same in the libraries that they are for?

    python benchmarks/export_parity.py --library timm --out export.json

Exports the smallest network of every family (others with `--match`) with random parameters and statistics
for each library, and verifies the file as `transfer-jax export --verify` does: with the printed call, in a
process of its own. The difference is relative to the largest logit. Networks of Google's repositories are
verified where these are on `PYTHONPATH`.
"""

import argparse
import datetime
import fnmatch
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from contest import print_rows, write_report
from onnx_parity import SMALLEST
from rich.progress import track

from transfer_jax.models import create_model, model_names
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.constructors import PROGRAMS, targets
from transfer_jax.weights.export import export_model, suffix
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.verify import VerificationError, verify_export

PACKAGES = ("jax", "torch", "torchvision", "timm", "transformers", "keras")


def save(name: str, folder: Path) -> None:
    """Saves a network with random parameters and statistics, none of them constant."""
    variant = variant_of(name)
    network = create_model(name, 5, hidden=variant.hidden)
    _, params, stats = split(network)
    rng = np.random.default_rng(0)
    arrays = {path: np.asarray(array) for path, array in {**params, **stats}.items()}
    for path, array in arrays.items():
        if array.ndim < 2 or path in stats:
            arrays[path] = (array + rng.uniform(-0.2, 0.2, array.shape)).astype(array.dtype)
    saved = SavedModel(
        model=name,
        task=SingleLabel(tuple("abcde")),
        preprocessing=variant.preprocessing,
        hidden=variant.hidden,
    )
    saved.save(folder / "model", arrays)


def row(name: str, library: str, folder: Path, python: Path | None) -> dict[str, str]:
    """Returns the result of an export."""
    found = {"network": name, "library": library, "difference": "", "result": ""}
    try:
        exported = export_model(folder, library, folder / f"exported{suffix(library)}")
        verified = verify_export(exported.file, exported.record, python)
        largest = max(map(abs, exported.record.outputs))
        found |= {"difference": f"{verified.difference / largest:.1e}", "result": "equal"}
    except ImportError:
        found["result"] = "not installed"
    except VerificationError as error:
        noted = "approximates the GELU" in str(error)
        found["result"] = "differs, as noted" if noted else str(error)
    except Exception as error:  # continue with the other networks
        found["result"] = f"{type(error).__name__}: {error}".splitlines()[0]
    jax.clear_caches()
    return found


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--match", help="shell pattern of the networks; default: the smallest of each family")
    parser.add_argument("--library", default="*", help="shell pattern of the libraries")
    parser.add_argument("--python", type=Path, help="Python that has the libraries; default: this one")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    names = fnmatch.filter(model_names(), arguments.match) if arguments.match else SMALLEST
    title = f"Logits of exported files against ours, {datetime.date.today()}"
    rows: list[dict[str, Any]] = []
    for name in track(names, "Exporting"):
        libraries = [each for each in targets(name) if each not in PROGRAMS]
        with tempfile.TemporaryDirectory() as folder:
            chosen = fnmatch.filter(libraries, arguments.library)
            if chosen:
                save(name, Path(folder))
            for library in chosen:
                rows.append(row(name, library, Path(folder), arguments.python))
                print(rows[-1], flush=True)
        if arguments.out:
            write_report(title, rows, arguments.out, packages=PACKAGES)
    if not rows:
        parser.error(f"no network matches {arguments.match!r} with a library {arguments.library!r}")
    print_rows(title, rows)
    raise SystemExit(any(found["result"] not in ("equal", "differs, as noted") for found in rows))


if __name__ == "__main__":
    main()
