"""The score of linear models on features of several depths."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.search.lbfgs import minimize
from transfer_jax.search.probe_data import ProbeData, features_by_depth, padded, probe_data
from transfer_jax.search.probe_result import DepthScore, ProbeResult, mean_and_error
from transfer_jax.tasks import Task

L2S = (10.0, 3.16, 1.0, 0.316, 0.1, 0.0316, 0.01, 3.16e-3, 1e-3, 3.16e-4, 1e-4, 3.16e-5, 1e-5)
"""L2 penalties of which the best is taken."""
_TOLERANCE, _MAX_STEPS = 1e-4, 1000


def linear_probe(
    features: Any,
    labels: Any,
    validation: Any = 0.25,
    *,
    l2s: Sequence[float] = L2S,
    folds: int = 5,
    seed: int = 0,
) -> ProbeResult:
    """Scores features by a linear model, at each depth.

    It has the default loss of the task: multinomial logistic regression of classes, logistic regression of
    each of several labels, ridge regression of numbers. It is fitted by L-BFGS to features that are
    standardized with the mean and the standard deviation of the training examples. The L2 penalty is chosen
    from a logarithmic grid, as for CLIP (arXiv:2103.00020, appendix A.3), by a cross-validation of the
    training examples. The validation examples choose nothing. The same arguments give the same result.

    Example:
        >>> dataset = load_dataset("photos/")
        >>> features = extract_features("efficientnet_lite0", dataset, at="all")
        >>> print(linear_probe(features, dataset))

    Args:
        features: As for `knn_probe`.
        labels: As for `knn_probe`.
        validation: As for `knn_probe`.
        l2s: L2 penalties to choose from: factors of half the sum of the squared weights, added to the mean
            loss. `C` of scikit-learn is `1 / (l2 * examples)`.
        folds: Number of folds of the cross-validation.
        seed: Seed of the split and of the folds.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, or an option is invalid.
    """
    if not l2s or min(l2s) <= 0 or folds < 2:
        raise ValueError(f"l2s must be above 0 and folds at least 2, got {tuple(l2s)} and {folds}")
    data = probe_data(labels, validation, seed)
    by_depth = features_by_depth(features, len(data.labels))
    scores = {name: linear_score(value, data, l2s, folds, seed) for name, value in by_depth.items()}
    return ProbeResult("linear", scores, len(data.train), len(data.validation), data.task.headline)


def fold_numbers(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Returns the fold of each example, `(n,)`, with the proportions of the classes in each fold.

    Args:
        labels: Classes or strata `(n,)`.
        groups: Groups `(n,)`; the examples of a group are in one fold.
        folds: Number of folds.
        seed: Seed of the order of the groups.
    """
    _, firsts, group = np.unique(groups, return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(firsts))
    by_class = shuffled[np.argsort(labels[firsts][shuffled], kind="stable")]
    fold = np.empty(len(firsts), np.int64)
    fold[by_class] = np.arange(len(firsts)) % folds
    return fold[group]


def linear_score(
    features: np.ndarray, data: ProbeData, l2s: Sequence[float] = L2S, folds: int = 5, seed: int = 0
) -> DepthScore:
    """Returns the score of features `(n, channels)` by a linear model; see `linear_probe`.

    Raises:
        ValueError: If the training examples are one group.
    """
    strata = data.task.strata(data.labels[data.train])
    fold = fold_numbers(strata, data.groups[data.train], folds, seed)
    if fold.max() < 1:
        raise ValueError("a cross-validation needs training examples of at least two groups, got one")
    train, held_out = features[data.train], features[data.validation]
    mean, deviation = train.mean(0), train.std(0)
    scale = 1 / np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6), deviation, np.inf)
    train, held_out = (jnp.asarray(padded((part - mean) * scale)) for part in (train, held_out))
    weights, labels = data.weights[data.train], data.labels[data.train]
    masks = np.stack([*(fold != number for number in range(fold.max() + 1)), np.ones_like(fold, bool)])
    shares = masks * weights
    shares = jnp.asarray(shares / shares.sum(1, keepdims=True), jnp.float32)
    weight = jnp.zeros((len(masks), data.task.outputs, train.shape[1] + 1))
    best = None
    for l2 in sorted(
        map(float, l2s), reverse=True
    ):  # From strong to weak: each solution is the start of the next one.
        weight, found, final = _fit(train, held_out, shares, labels, fold, l2, weight, task=data.task)
        values = data.task.image_values(data.task.predictions(np.asarray(found)), labels)
        score, _ = mean_and_error(values, weights)
        if best is None or data.task.headline.is_better(score, best[0]):
            best = (score, l2, np.asarray(final))
    assert best is not None  # There is a penalty.
    training_score, l2, final = best
    values = data.task.image_values(data.task.predictions(final), data.labels[data.validation])
    score, error = mean_and_error(values, data.weights[data.validation])
    return DepthScore(
        score=score,
        standard_error=error,
        training_score=training_score,
        setting=l2,
        channels=features.shape[1],
    )


@functools.partial(jax.jit, static_argnames=("task",))
def _fit(
    train: jax.Array,
    held_out: jax.Array,
    shares: jax.Array,
    labels: jax.Array,
    fold: jax.Array,
    l2: jax.Array,
    start: jax.Array,
    *,
    task: Task,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fits a linear model to each of several parts of the training examples; the last part is all of them.

    Args:
        train: Standardized features `(n, channels)`.
        held_out: Those of the validation examples.
        shares: Share of each example in the loss of each part, `(parts, n)`.
        labels: Labels, as the task has them.
        fold: Part of which each training example is not in the loss, `(n,)`.
        l2: The penalty.
        start: The first models `(parts, outputs, channels + 1)`; the last channel is the bias.
        task: The task.

    Returns:
        The models; the outputs for each training example of the model that was fitted without it,
        `(n, outputs)`; and those of the last model for the validation examples.
    """
    targets, loss = task.targets(labels), task.loss("auto")

    def outputs(features: jax.Array, model: jax.Array) -> jax.Array:
        product = jnp.einsum("nd,pcd->pnc", features, model[..., :-1], precision=jax.lax.Precision.HIGHEST)
        return product + model[:, None, :, -1]

    def losses(point: jax.Array) -> jax.Array:
        model = point.reshape(start.shape)
        each = loss(outputs(train, model), jnp.broadcast_to(targets, (len(start), *targets.shape)))
        return l2 / 2 * (model[..., :-1] ** 2).sum((1, 2)) + (shares * each).sum(1)

    point = start.reshape(len(start), -1)
    found = minimize(losses, point, tolerance=_TOLERANCE, max_steps=_MAX_STEPS).point.reshape(start.shape)
    own = outputs(train, found)[fold, jnp.arange(len(fold))]
    return found, own, outputs(held_out, found[-1:])[0]
