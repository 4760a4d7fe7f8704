"""The figures of a run: training curves and confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.report.save_figure import save_figure
from transfer_jax.storage import workdir_files


def write_figures(
    workdir: Path,
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Draws `curves.png` and `confusion.png` into a workdir.

    Args:
        workdir: The workdir of the run, with `metrics.jsonl`.
        probabilities: The probabilities of the validation images, `(images, classes)`.
        labels: The true classes of the validation images, `(images,)`.
        class_names: The names of the classes.
    """
    save_figure(_curves(workdir / workdir_files.METRICS), workdir / workdir_files.CURVES)
    save_figure(_confusion(probabilities.argmax(-1), labels, class_names), workdir / workdir_files.CONFUSION)


def _curves(path: Path) -> Figure:
    """Returns a figure of loss, accuracy and learning rate over the steps of all phases."""
    lines = read_metrics(path)
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "evaluation"]
    figure = Figure(figsize=(10, 3), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    ends = {line["phase"]: line["step"] for line in train}
    for axes, name in ((loss, "loss"), (accuracy, "accuracy"), (rate, "learning_rate")):
        axes.plot([line["step"] for line in train], [line[name] for line in train], ".-", label="train")
        axes.set(title=name.replace("_", " "), xlabel="step")
        for end in list(ends.values())[:-1]:
            axes.axvline(end, color="gray", linewidth=0.8, linestyle=":")
    steps = [line["step"] for line in validation]
    loss.plot(steps, [line["log_loss"] for line in validation], "s", label="validation")
    accuracy.plot(steps, [line["accuracy"] for line in validation], "s", label="validation")
    rate.set_yscale("log")
    loss.legend()
    return figure


def _confusion(predicted: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Returns a figure of the confusion matrix."""
    count = len(class_names)
    matrix = np.zeros((count, count), int)
    np.add.at(matrix, (labels, predicted), 1)
    fraction = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(2.5 + 0.5 * count, 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes: Axes = figure.subplots()
    image = axes.imshow(fraction, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, label="fraction of the true class")
    axes.set(xlabel="predicted", ylabel="true", xticks=range(count), yticks=range(count))
    axes.set_xticklabels(class_names, rotation=45, ha="right")
    axes.set_yticklabels(class_names)
    if count <= 20:
        for row, column in np.ndindex(count, count):
            colour = "white" if fraction[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    return figure
