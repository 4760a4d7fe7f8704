"""The score of nearest neighbours on features of several depths."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.search.probe_data import ProbeData, features_by_depth, padded, probe_data
from transfer_jax.search.probe_result import DepthScore, ProbeResult, mean_and_error
from transfer_jax.tasks import SingleLabel, Task

KS = (1, 5, 10, 20, 50, 100, 200)
"""Numbers of neighbours of which the best is taken; DINO reports 10, 20, 100 and 200."""
TEMPERATURE = 0.07
"""Temperature of the votes."""
_ENTRIES = 1 << 24
"""Largest number of entries of the arrays of a chunk of queries."""


def knn_probe(
    features: Any,
    labels: Any,
    validation: Any = 0.25,
    *,
    ks: Sequence[int] = KS,
    temperature: float = TEMPERATURE,
    seed: int = 0,
) -> ProbeResult:
    """Scores features by a vote of the nearest neighbours, at each depth.

    The neighbours are those with the largest cosine similarity `s`, and have votes of `exp(s / temperature)`
    (Wu et al. 2018, arXiv:1805.01978, section 3.4; the temperature is that of DINO, arXiv:2104.14294).
    Several labels have the mean of the neighbours' labels as probabilities, and numbers the mean of their
    numbers, weighted by the votes; the score is then the mean average precision or the mean absolute error.
    The number of neighbours is chosen by leaving out each training example once. The validation examples
    choose nothing.

    Example:
        >>> dataset = load_dataset("photos/")
        >>> features = extract_features("efficientnet_lite0", dataset, at="all")
        >>> print(knn_probe(features, dataset))

    Args:
        features: Pooled features `(n, channels)` by depth, as `extract_features` returns them: a dictionary,
            a `FeatureCache`, or one array.
        labels: `n` class names or numbers, or the `ImageDataset` that the features are of. A dataset with a
            split of its own keeps it; its weights count, and near duplicates that it keeps together are no
            neighbours of each other.
        validation: Fraction of validation examples, in the proportions of the classes; bool `(n,)`; or the
            positions of the validation examples.
        ks: Numbers of neighbours to choose from. Those above the number of training examples are left out.
        temperature: Temperature of the votes.
        seed: Seed of the split.

    Raises:
        ValueError: If shapes do not fit, a value is not finite, or an option is invalid.
    """
    if temperature <= 0 or not ks or min(ks) < 1:
        raise ValueError(f"temperature and ks must be above 0, got {temperature} and {tuple(ks)}")
    data = probe_data(labels, validation, seed)
    by_depth = features_by_depth(features, len(data.labels))
    usable = usable_ks(ks, len(data.train))
    scores = {name: knn_score(value, data, usable, temperature) for name, value in by_depth.items()}
    return ProbeResult("knn", scores, len(data.train), len(data.validation), data.task.headline)


def usable_ks(ks: Sequence[int], examples: int) -> tuple[int, ...]:
    """Returns the numbers of neighbours that a number of training examples has, ascending."""
    return tuple(sorted({k for k in ks if k < examples})) or (1,)


def knn_score(
    features: np.ndarray, data: ProbeData, ks: tuple[int, ...], temperature: float = TEMPERATURE
) -> DepthScore:
    """Returns the score of features `(n, channels)` by the nearest neighbours; see `knn_probe`."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    unit = padded(unit)
    by_part = []
    for part in (data.train, data.validation):
        found = _predictions(
            unit[part],
            data.groups[part],
            unit[data.train],
            data.groups[data.train],
            data.labels[data.train],
            data.weights[data.train],
            ks=ks,
            task=data.task,
            temperature=temperature,
        )
        values = _values(data.task, np.asarray(found), data.labels[part])
        by_part.append([mean_and_error(each, data.weights[part]) for each in values])
    chosen = data.task.headline.best(np.array([mean for mean, _ in by_part[0]]))
    score, error = by_part[1][chosen]
    return DepthScore(
        score=score,
        standard_error=error,
        training_score=by_part[0][chosen][0],
        setting=ks[chosen],
        channels=features.shape[1],
    )


def _values(task: Task, found: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Returns the values of examples by number of neighbours; see `_predictions` and `Task.image_values`."""
    if isinstance(task, SingleLabel):
        return [np.equal(each, labels).astype(np.float64) for each in found.T]
    return [task.image_values(task.from_targets(each), labels) for each in found.swapaxes(0, 1)]


@functools.partial(jax.jit, static_argnames=("ks", "task", "temperature"))
def _predictions(
    queries: jax.Array,
    query_groups: jax.Array,
    bank: jax.Array,
    bank_groups: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    ks: tuple[int, ...],
    task: Task,
    temperature: float,
) -> jax.Array:
    """Returns the classes of queries, `(queries, len(ks))`; of other tasks mean targets, with columns last.

    No query is a neighbour of its own group.

    Args:
        queries: Features of length one, `(queries, channels)`.
        query_groups: Group of each query.
        bank: Features of the training examples, `(examples, channels)`.
        bank_groups: Group of each training example.
        labels: Label of each training example.
        weights: Weight of each training example.
        ks: Numbers of neighbours, ascending.
        task: The task.
        temperature: Temperature of the votes.
    """
    counted = jnp.arange(ks[-1]) < jnp.array(ks)[:, None]

    def predict(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        features, group = query
        similarity = jnp.matmul(bank, features, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(bank_groups == group, -jnp.inf, similarity)
        nearest, rows = jax.lax.top_k(similarity, ks[-1])
        votes = jnp.exp((nearest - 1) / temperature) * weights[rows]  # Less 1: the exponent is at most 0.
        counts = counted * votes
        totals = jnp.matmul(counts, task.targets(labels[rows]), precision=jax.lax.Precision.HIGHEST)
        if isinstance(task, SingleLabel):
            return totals.argmax(-1)
        return totals / counts.sum(-1, keepdims=True)

    size = max(1, min(len(queries), _ENTRIES // max(len(bank), ks[-1] * len(task.names))))
    return jax.lax.map(predict, (queries, query_groups), batch_size=size)
