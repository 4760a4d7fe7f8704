"""The figures of a run: training curves and confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transfer_jax.report.figure_text import drawing, labels
from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.save_figure import save_figure
from transfer_jax.tasks import task_class

_MOST_CLASSES = 60
"""The largest number of classes of a confusion matrix."""


def draw_curves(metrics: Path, path: Path) -> None:
    """Draws loss, score and learning rate over the steps of all phases.

    Args:
        metrics: The metrics log of the run.
        path: The file, `.png` or `.svg`.
    """
    lines = read_metrics(metrics)
    with drawing([]):
        save_figure(
            _curves(
                [line for line in lines if line["kind"] == "train"],
                [line for line in lines if line["kind"] == "evaluation"],
            ),
            path,
        )


def draw_confusion(metrics: Path, path: Path) -> None:
    """Draws the confusion matrix of the validation images with the weights that are kept.

    Of many classes it has those with the most misclassified images. A task without classes that exclude each
    other has no confusion matrix.

    Args:
        metrics: The metrics log in the workdir of the run.
        path: The file, `.png` or `.svg`.

    Raises:
        ValueError: If the log has no evaluation.
    """
    run = RunFiles(metrics.parent, metrics.parent.name)
    if not run.scores:
        raise ValueError(f"{metrics} has no evaluation")
    found = run.class_scores()
    if found is None or found.confusions is None:
        return
    shown = found.confusions.most_confused(_MOST_CLASSES)
    class_names, of_all = [found.names[place] for place in shown], len(found.names)
    with drawing(class_names):
        matrix, totals = found.confusions.matrix(shown), found.confusions.present[shown]
        save_figure(_confusion(matrix, totals, class_names, of_all), path)


def _curves(train: list[dict], validation: list[dict]) -> Figure:
    figure = Figure(figsize=(10, 3), layout="constrained")
    loss, score, rate = figure.subplots(1, 3)
    ends = {line["phase"]: line["step"] for line in train}
    task = task_class(validation[-1] if validation else {})
    metric = task.step_metric
    shown = (
        (loss, "loss", "loss"),
        (score, metric.name, metric.title),
        (rate, "learning_rate", "learning rate"),
    )
    for axes, name, title in shown:
        axes.plot([line["step"] for line in train], [line[name] for line in train], ".-", label="train")
        axes.set(title=title, xlabel="step")
        for end in list(ends.values())[:-1]:
            axes.axvline(end, color="gray", linewidth=0.8, linestyle=":")
    steps = [line["step"] for line in validation]
    loss.plot(steps, [line[task.objective.name] for line in validation], "s", label="validation")
    score.plot(steps, [line[metric.name] for line in validation], "s", label="validation")
    rate.set_yscale("log")
    loss.legend()
    return figure


def _confusion(matrix: np.ndarray, totals: np.ndarray, class_names: Sequence[str], of_all: int) -> Figure:
    count = len(class_names)
    fraction = matrix / np.maximum(totals[:, None], 1)
    side = min(2.5 + 0.5 * count, 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes: Axes = figure.subplots()
    image = axes.imshow(fraction, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, label="fraction of the true class")
    places, shown = range(count), labels(class_names)
    if count < of_all:
        axes.set_title(f"{count} of {of_all:,} classes, those with the most errors")
    axes.set(xlabel="predicted", ylabel="true", xticks=places, yticks=places)
    axes.set_xticklabels(shown, rotation=45, ha="right")
    axes.set_yticklabels(shown)
    if count <= 20:
        for row, column in np.ndindex(count, count):
            colour = "white" if fraction[row, column] > 0.5 else "black"
            axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    return figure
