"""Do lower blocks gain less, and do more parameters overfit a small set?

    python benchmarks/claims.py --fashion FOLDER_OF_IDX_FILES --workdir claims --out claims.json

Tests two textbook claims with a study `sample_size`, which it starts or resumes: on the solar cells, and on
Fashion-MNIST, whose four files are in Debian's package `dataset-fashion-mnist`. Pairs are seeds; intervals
are those of the corrected resampled t-test at 95 %, uncorrected for the number of tests.

- Lower blocks gain less: training the upper half of the blocks gains more over the head alone than training
  the lower half in addition gains over that.
- More parameters overfit a small set: the gap between training and validation images is wider with all
  blocks than with the head alone. The gap is computed for accuracies and for log losses, because all arms
  fit few images perfectly.
"""

import argparse
import datetime
import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from contest import report
from PIL import Image

from transfer_jax.studies.statistics import PairedDifferences, paired_t_test

FASHION = ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
DEPTHS = ("0", "9", "18")
"""Numbers of trainable blocks of EfficientNet-Lite0: none, the upper half, all 18."""


def write_fashion(source: Path, folder: Path, per_class: int) -> None:
    """Writes the first images of each class of Fashion-MNIST as PNG files, a folder for each class."""
    images = _idx(source / "train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    labels = _idx(source / "train-labels-idx1-ubyte.gz", 8)
    for label, name in enumerate(FASHION):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in np.flatnonzero(labels == label)[:per_class]:
            Image.fromarray(images[index]).save(folder / name / f"{index:05d}.png")


def _idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def study(images: str, folder: Path, seeds: int, workers: int | None) -> list[dict[str, Any]]:
    """Runs the study on some images, and returns its table."""
    command = [sys.executable, "-m", "transfer_jax.cli", "study", "sample_size", "--images", images]
    command += ["--levels", *DEPTHS, "--seeds", str(seeds), "--workdir", str(folder)]
    command += [] if workers is None else ["--workers", str(workers)]
    subprocess.run(command, check=True)
    return pq.read_table(folder / "table.parquet").to_pylist()


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns, for each number of images, the differences that the claims are about, with intervals."""
    sizes = list(dict.fromkeys(row["images_per_class"] for row in rows))
    seeds = sorted({row["seed"] for row in rows})
    none, half, every = (int(depth) for depth in DEPTHS)

    cells = {(row["images_per_class"], row["depth"], row["seed"]): row for row in rows}
    # Validation images over training images of the split, whatever part of these is used.
    split = cells["all", none, seeds[0]]
    overlap = split["held_out_images"] / split["training_images"]

    def column(size: str, depth: int, name: str) -> np.ndarray:
        return np.array([cells[size, depth, seed][name] for seed in seeds])

    rows = []
    for size in sizes:
        accuracy = {depth: 100 * column(size, depth, "accuracy") for depth in (none, half, every)}
        gap = {depth: 100 * column(size, depth, "overfit_gap") for depth in (none, every)}
        loss = {
            depth: column(size, depth, "log_loss") - column(size, depth, "train_log_loss")
            for depth in (none, every)
        }
        upper, lower = accuracy[half] - accuracy[none], accuracy[every] - accuracy[half]
        rows.append(
            {
                "images": cells[size, none, seeds[0]]["training_images"],
                "head only %": accuracy[none].mean(),
                "upper half %": accuracy[half].mean(),
                "all %": accuracy[every].mean(),
                "upper half gains": _text(paired_t_test(upper, overlap)),
                "lower half gains": _text(paired_t_test(lower, overlap)),
                "upper less lower": _text(paired_t_test(upper - lower, overlap)),
                "gap wider by": _text(paired_t_test(gap[every] - gap[none], overlap)),
                "loss gap, head only": f"{loss[none].mean():.2f}",
                "loss gap, all": f"{loss[every].mean():.2f}",
                "loss gap wider by": _text(paired_t_test(loss[every] - loss[none], overlap), 2),
            }
        )
    return rows


def _text(found: PairedDifferences, digits: int = 1) -> str:
    difference = f"{found.difference:+.{digits}f}"
    if found.low is None or found.high is None:
        return difference
    return f"{difference} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--fashion", type=Path, help="folder of the files of Fashion-MNIST; without it, cells only"
    )
    parser.add_argument("--per-class", type=int, default=270, help="images of each class of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="processes that train")
    parser.add_argument("--workdir", type=Path, default=Path("claims"))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    sources = {"cells": "elpv:confidence"}
    if arguments.fashion:
        sources["fashion"] = str(arguments.workdir / "images")
        if not Path(sources["fashion"]).exists():
            write_fashion(arguments.fashion, Path(sources["fashion"]), arguments.per_class)
    rows = []
    for name, images in sources.items():
        found = claims(study(images, arguments.workdir / name, arguments.seeds, arguments.workers))
        rows += [{"of": name, **each} for each in found]
    title = f"Points of accuracy, {arguments.seeds} seeds, 95 % intervals, {datetime.date.today()}"
    report(title, rows, arguments.out, packages=("jax", "scipy"))


if __name__ == "__main__":
    main()
