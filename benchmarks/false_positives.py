"""How often does a study claim a difference or a trend that does not exist?

    python benchmarks/false_positives.py --out false_positives.json

Simulates studies whose arms are alike, and counts those in which `transfer_jax.studies` claims anything: a
level that differs from the baseline or the best, or a trend. For comparison, it counts the claims of single
tests of the levels against the baseline, corrected by Holm. The kinds of arms that are alike:

* `scores`: accuracies that differ by noise, normal or with heavy tails; images are unknown;
* `models`: each trained model is right on an image depending on the difficulty of the image and on a random
  direction among the features of images that is its own: an arm and a seed are two models, which differ
  more at random than the images of a test do;
* `habits`: in addition, each arm is better on some images and worse on others, in every seed, and equally
  good on average over all possible images. Tests over seeds alone take that for a difference;
* `errors`: absolute errors of predicted numbers, whose spread depends on the image, with habits.
"""

import argparse
import datetime
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from contest import report

from transfer_jax.studies.significance import ABSENT, Scores, Significance, assess_significance
from transfer_jax.studies.statistics import LEVEL, holm, paired_t_test, wilcoxon
from transfer_jax.tasks import Regression

HELD_OUT = 0.25
FEATURES = 20


def alike_scores(rng: np.random.Generator, levels: int, seeds: int, *, tails: bool) -> Scores:
    """Returns accuracies and gaps of arms that differ by noise alone."""
    split = rng.normal(0.85, 0.01, seeds)
    noise = rng.standard_t(3, (2, levels, seeds)) if tails else rng.normal(size=(2, levels, seeds))
    accuracy, gap = split + 0.01 * noise[0], 0.1 + 0.02 * noise[1]
    return Scores(_names(levels), _labels(levels), accuracy, gap, overlap=HELD_OUT / (1 - HELD_OUT))


def alike_models(
    rng: np.random.Generator, levels: int, seeds: int, *, images: int, randomness: float, habits: float
) -> Scores:
    """Returns predictions of models that differ at random, and of arms that differ by their habits."""
    hard = rng.normal(1.5, 1.5, images)
    features = rng.normal(size=(images, FEATURES)) / np.sqrt(FEATURES)
    own = randomness * rng.normal(size=(levels, seeds, 1 + FEATURES))
    logits = hard + own[..., :1] / 2 + own[..., 1:] @ features.T
    logits += habits * rng.normal(size=(levels, 1, images))
    logits += 0.3 * rng.normal(size=logits.shape)
    held = np.stack([rng.permutation(images) < round(HELD_OUT * images) for _ in range(seeds)])
    right = np.where(held, logits > 0, ABSENT)
    accuracy = np.where(held, logits > 0, False).sum(-1) / held.sum(-1)
    gap = 0.1 + 0.02 * rng.normal(size=(levels, seeds))
    overlap = HELD_OUT / (1 - HELD_OUT)
    return Scores(_names(levels), _labels(levels), accuracy, gap, right, overlap=overlap)


def alike_errors(rng: np.random.Generator, levels: int, seeds: int, *, images: int, habits: float) -> Scores:
    """Returns absolute errors of models that differ at random, and of arms that differ by their habits."""
    spread = np.exp(rng.normal(0, 0.7, images))
    own = rng.normal(size=(levels, seeds, images)) + habits * rng.normal(size=(levels, 1, images))
    held = np.stack([rng.permutation(images) < round(HELD_OUT * images) for _ in range(seeds)])
    errors = np.where(held, np.abs(spread * own), ABSENT)
    gap = 0.1 + 0.02 * rng.normal(size=(levels, seeds))
    overlap = HELD_OUT / (1 - HELD_OUT)
    values = np.nanmean(errors, -1)
    return Scores(_names(levels), _labels(levels), values, gap, errors, Regression.metrics[0], False, overlap)


def _names(levels: int) -> tuple[int, ...]:
    return tuple(range(levels))


def _labels(levels: int) -> tuple[str, ...]:
    return tuple(map(str, range(levels)))


NULLS: Mapping[str, Callable[..., Scores]] = {
    "scores, normal": lambda rng, levels, seeds, images: alike_scores(rng, levels, seeds, tails=False),
    "scores, heavy tails": lambda rng, levels, seeds, images: alike_scores(rng, levels, seeds, tails=True),
    "models, little randomness": lambda rng, levels, seeds, images: alike_models(
        rng, levels, seeds, images=images, randomness=0.1, habits=0.0
    ),
    "models, much randomness": lambda rng, levels, seeds, images: alike_models(
        rng, levels, seeds, images=images, randomness=0.5, habits=0.0
    ),
    "habits": lambda rng, levels, seeds, images: alike_models(
        rng, levels, seeds, images=images, randomness=0.2, habits=0.5
    ),
    "errors": lambda rng, levels, seeds, images: alike_errors(rng, levels, seeds, images=images, habits=0.3),
}


def claimed(judgement: Significance) -> dict[str, bool]:
    """Returns whether the procedure claims anything, and whether single tests do."""
    planned = [each for each in judgement.comparisons if each.family == "baseline"]
    alone = {
        "t, uncorrected": [paired_t_test(each.paired.differences, 0.0).p for each in planned],
        "t, corrected": [each.paired.p for each in planned],
        "Wilcoxon": [wilcoxon(each.paired.differences) for each in planned],
        "over images": [1.0 if each.p_images is None else each.p_images for each in planned],
        "Page, score": [each.trend.p_seeds for each in judgement.trends if each.metric != "overfit_gap"],
    }
    found = {name: bool((holm(p) <= LEVEL).any()) for name, p in alone.items()}
    return {"the procedure": judgement.claims > 0, **found}


def rate(null: str, levels: int, seeds: int, images: int, studies: int) -> dict[str, Any]:
    """Returns the fraction of studies that claim anything."""
    found = []
    for number in range(studies):
        scores = NULLS[null](np.random.default_rng([number, levels, seeds]), levels, seeds, images)
        found.append(claimed(assess_significance([scores], 0, ordered=True)))
    return {name: 100 * float(np.mean([each[name] for each in found])) for name in found[0]}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--levels", type=int, nargs="+", default=(2, 7))
    parser.add_argument("--seeds", type=int, nargs="+", default=(5, 12))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for null in NULLS:
        for levels in arguments.levels:
            for seeds in arguments.seeds:
                started = time.perf_counter()
                found = rate(null, levels, seeds, arguments.images, arguments.studies)
                rows.append({"arms alike": null, "levels": levels, "seeds": seeds, **found})
                rows[-1]["s"] = time.perf_counter() - started
    title = f"% of {arguments.studies} studies that claim anything, {datetime.date.today()}"
    report(title, rows, arguments.out, packages=("numpy", "scipy"))


if __name__ == "__main__":
    main()
