"""Accuracy and loss on the straight line between the weights at the start and at the end of a run.

Sources: Goodfellow et al. 2015, arXiv:1412.6544, for the line; Wortsman et al. 2022 (WiSE-FT),
arXiv:2109.01903, for the line with a trained head.
"""

from collections.abc import Iterable

from transfer_jax.diagnostics.finished_run import FinishedRun
from transfer_jax.diagnostics.scoring import Scorer, sample_images
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.models.paths import block_of
from transfer_jax.tasks.classification_scores import log_loss


def interpolate(start: Arrays, end: Arrays, alpha: float) -> Arrays:
    """Returns `(1 - alpha) start + alpha end` for all arrays, including running statistics."""
    return {path: (1 - alpha) * array + alpha * end[path] for path, array in start.items()}


def interpolation(finished: FinishedRun, alphas: Iterable[float], images: int) -> list[dict[str, float]]:
    """Returns scores on the validation images along the line from the start of a run to its end.

    The head is random at the start, so the network guesses there. If the backbone was trained, a second line
    keeps the trained head and interpolates the backbone only.

    Args:
        finished: The run.
        alphas: Points on the line: 0 is the start, 1 is the end.
        images: Maximum number of validation images, drawn with the seed of the run.

    Returns:
        For each point its `alpha`, the `accuracy` and the `log_loss`; for the line with the trained head also
        `backbone_accuracy` and `backbone_log_loss`.
    """
    validation = sample_images(finished.images[1], images, finished.config.seed)
    start, end, alphas = finished.start, finished.end, list(alphas)
    head = {path: array for path, array in end.items() if block_of(path) == "head"}
    lines = {"": start}
    if len({*finished.changed, "head"}) > 1 and "head" in finished.changed:
        lines["backbone_"] = {**start, **head}
    scorer, labels = Scorer(finished, validation, len(alphas)), validation.labels
    found = []
    finished.progress.start("interpolating", len(alphas) * len(lines) * len(validation))
    for alpha in alphas:
        place = {"alpha": float(alpha)}
        for name, first in lines.items():
            probabilities = scorer(interpolate(first, end, alpha))
            place[f"{name}accuracy"] = float((probabilities.argmax(-1) == labels).mean())
            place[f"{name}log_loss"] = log_loss(labels, probabilities)
        found.append(place)
    finished.progress.finish()
    return found
