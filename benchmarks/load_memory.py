"""How much memory does loading weights into a model need, for each file format?

    python benchmarks/load_memory.py --model vit_base_patch16_224

Writes the parameters of the network in every format that can be written here, loads a model from each file
in its own process, and prints the growth of the peak memory of the process (VmHWM) as a multiple of the
file's size. The parameters themselves are one such multiple.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contest import report

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.key_mapping import to_library

Saved = dict[str, np.ndarray]


def _safetensors(arrays: Saved, path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(arrays, path)


def _shards(arrays: Saved, path: Path) -> None:
    import json

    from safetensors.numpy import save_file

    path.mkdir()
    places = {key: f"model-{index % 3}.safetensors" for index, key in enumerate(arrays)}
    for name in {*places.values()}:
        save_file({key: arrays[key] for key in arrays if places[key] == name}, path / name)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _npz(arrays: Saved, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _npz_packed(arrays: Saved, path: Path) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _torch(arrays: Saved, path: Path) -> None:
    import torch

    torch.save({key: torch.from_numpy(array.copy()) for key, array in arrays.items()}, path)


def _torch_legacy(arrays: Saved, path: Path) -> None:
    import torch

    state = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)


def _orbax(arrays: Saved, path: Path) -> None:
    import orbax.checkpoint

    orbax.checkpoint.PyTreeCheckpointer().save(path, {"params": arrays})


WRITERS: dict[str, tuple[str, Callable[[Saved, Path], None]]] = {
    "safetensors": ("timm", _safetensors),
    "safetensors in 3 files": ("timm", _shards),
    "torch": ("timm", _torch),
    "torch, before 1.6": ("timm", _torch_legacy),
    "npz": ("vision_transformer", _npz),
    "npz, compressed": ("vision_transformer", _npz_packed),
    "orbax": ("timm", _orbax),
}
"""By format: the library whose names are written, and the function that writes the file."""


def fill(model: str, path: str) -> int:
    """Loads the model, and returns the growth of the peak memory in bytes."""
    network = create_model(model, 10, abstract_backbone=True)
    np.asarray(network.head.classifier.kernel[...])
    before = _most()
    assert load_pretrained(network, find_spec(model, path), head=True).complete
    return _most() - before


def _most() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def growth(model: str, format: str, folder: Path) -> tuple[int, int]:
    """Returns the size of the file and the growth of the peak memory of a process that loads it, in bytes.

    Raises:
        ImportError: If the library that writes the format is not installed.
    """
    library, write = WRITERS[format]
    _, params, stats = split(create_model(model, 10))
    arrays = {path: np.asarray(array) for path, array in {**params, **stats}.items()}
    path = folder / "weights"
    write(to_library(model, arrays, library), path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    command = [sys.executable, __file__, "--model", model, "--fill", str(path)]
    grew = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sum(file.stat().st_size for file in files), int(grew)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224", help="the network; a vision transformer")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        print(fill(arguments.model, arguments.fill))
        return
    rows: list[dict[str, Any]] = []
    for format in WRITERS:
        with tempfile.TemporaryDirectory() as folder:
            size, grew = growth(arguments.model, format, Path(folder))
        megabytes = {"file": f"{size / 1e6:.0f} MB", "grew": f"{grew / 1e6:.0f} MB"}
        rows.append({"format": format, **megabytes, "multiple": f"{grew / size:.2f}"})
    title = f"Memory for loading {arguments.model}, {datetime.date.today()}"
    report(title, rows, arguments.out, packages=("jax", "numpy", "safetensors", "tensorstore"))


if __name__ == "__main__":
    main()
