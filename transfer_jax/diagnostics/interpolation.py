"""What lies on the straight line between the start and the end of a run.

Sources: Goodfellow et al. 2015, arXiv:1412.6544, for the line; Wortsman et al. 2022 (WiSE-FT),
arXiv:2109.01903, for a trained head above a backbone that is only partly fine-tuned.
"""

from collections.abc import Iterable

import numpy as np
from sklearn.metrics import log_loss

from transfer_jax.diagnostics.finished_run import FinishedRun
from transfer_jax.diagnostics.scoring import Scorer, sample_images
from transfer_jax.models.flat_arrays import Arrays, block_of


def interpolate(start: Arrays, end: Arrays, alpha: float) -> Arrays:
    """The arrays at `(1 - alpha) start + alpha end`, running statistics too."""
    return {path: (1 - alpha) * array + alpha * end[path] for path, array in start.items()}


def interpolation(finished: FinishedRun, alphas: Iterable[float], images: int) -> list[dict[str, float]]:
    """Scores on images held out along the line from the start of a run, at 0, to its end, at 1.

    The head is random at the start, so that there the network guesses. If the backbone was trained under it,
    there is a second line, along which the trained head stays and only the backbone moves.

    Args:
        finished: The run.
        alphas: Places on the line.
        images: How many of the images held out to look at, at most; drawn by the seed of the run.

    Returns:
        For each place `alpha`, `accuracy` and `log_loss`, and those with the trained head,
        `backbone_accuracy` and `backbone_log_loss`.
    """
    held_out = sample_images(finished.images[1], images, finished.config.seed)
    start, end, alphas = finished.start, finished.end, list(alphas)
    head = {path: array for path, array in end.items() if block_of(path) == "head"}
    lines = {"": start}
    if len({*finished.changed, "head"}) > 1 and "head" in finished.changed:
        lines["backbone_"] = {**start, **head}
    scorer, labels = Scorer(finished, held_out, len(alphas)), held_out.labels
    classes, found = np.arange(len(held_out.class_names)), []
    finished.progress.start("interpolating", len(alphas) * len(lines) * len(held_out))
    for alpha in alphas:
        place = {"alpha": float(alpha)}
        for name, first in lines.items():
            probabilities = scorer(interpolate(first, end, alpha))
            place[f"{name}accuracy"] = float((probabilities.argmax(-1) == labels).mean())
            place[f"{name}log_loss"] = float(log_loss(labels, probabilities, labels=classes))
        found.append(place)
    finished.progress.finish()
    return found
