"""The accuracy of nearest neighbours on features of several depths."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.search.probe_data import ProbeData, features_by_depth, padded, probe_data
from transfer_jax.search.probe_result import DepthScore, ProbeResult, standard_error

KS = (1, 5, 10, 20, 50, 100, 200)
"""Numbers of neighbours of which the best is taken; DINO reports 10, 20, 100 and 200."""
_ENTRIES = 1 << 24
"""Largest number of entries of the arrays of a chunk of queries."""


def knn_probe(
    features: Any,
    labels: Any,
    validation: Any = 0.25,
    *,
    ks: Sequence[int] = KS,
    temperature: float = 0.07,
    seed: int = 0,
) -> ProbeResult:
    """Scores features by a vote of the nearest neighbours, at each depth.

    The neighbours are those with the largest cosine similarity `s`, and have votes of `exp(s / temperature)`
    (Wu et al. 2018, arXiv:1805.01978, section 3.4; the temperature is that of DINO, arXiv:2104.14294). The
    number of neighbours is chosen by leaving out each training example once. The validation examples choose
    nothing.

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
    usable = tuple(sorted({k for k in ks if k < len(data.train)})) or (1,)
    scores = {name: _score(value, data, usable, temperature) for name, value in by_depth.items()}
    return ProbeResult("knn", scores, len(data.train), len(data.validation))


def _score(features: np.ndarray, data: ProbeData, ks: tuple[int, ...], temperature: float) -> DepthScore:
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    unit = padded(unit)
    accuracies = []
    for part in (data.train, data.validation):
        found = _predictions(
            unit[part],
            data.groups[part],
            unit[data.train],
            data.groups[data.train],
            data.labels[data.train],
            data.weights[data.train],
            ks=ks,
            classes=data.classes,
            temperature=temperature,
        )
        correct = np.asarray(found) == data.labels[part][:, None]
        accuracies.append(np.average(correct, axis=0, weights=data.weights[part]))
    chosen = int(np.argmax(accuracies[0]))
    accuracy = float(accuracies[1][chosen])
    return DepthScore(
        accuracy=accuracy,
        standard_error=standard_error(accuracy, len(data.validation)),
        training_accuracy=float(accuracies[0][chosen]),
        setting=ks[chosen],
        channels=features.shape[1],
    )


@functools.partial(jax.jit, static_argnames=("ks", "classes", "temperature"))
def _predictions(
    queries: jax.Array,
    query_groups: jax.Array,
    bank: jax.Array,
    bank_groups: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    *,
    ks: tuple[int, ...],
    classes: int,
    temperature: float,
) -> jax.Array:
    """Returns the classes of queries `(queries, len(ks))`. No query is a neighbour of its own group.

    Args:
        queries: Features of length one, `(queries, channels)`.
        query_groups: Group of each query.
        bank: Features of the training examples, `(examples, channels)`.
        bank_groups: Group of each training example.
        labels: Class of each training example.
        weights: Weight of each training example.
        ks: Numbers of neighbours, ascending.
        classes: Number of classes.
        temperature: Temperature of the votes.
    """
    counted = jnp.arange(ks[-1]) < jnp.array(ks)[:, None]

    def predict(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        features, group = query
        similarity = jnp.matmul(bank, features, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(bank_groups == group, -jnp.inf, similarity)
        nearest, rows = jax.lax.top_k(similarity, ks[-1])
        votes = jnp.exp((nearest - 1) / temperature) * weights[rows]  # Less 1: the exponent is at most 0.
        of_class = jax.nn.one_hot(labels[rows], classes)
        totals = jnp.matmul(counted * votes, of_class, precision=jax.lax.Precision.HIGHEST)
        return totals.argmax(-1)

    size = max(1, min(len(queries), _ENTRIES // max(len(bank), ks[-1] * classes)))
    return jax.lax.map(predict, (queries, query_groups), batch_size=size)
