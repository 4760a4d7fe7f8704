"""Similarity of a network's activations with two sets of arrays, block by block: linear CKA.

Source: Kornblith et al. 2019, arXiv:1905.00414. Linear CKA compares the Gram matrices of a batch's
activations. It is 1 if the activations are equal up to rotation and scale.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.models.flat_arrays import Arrays, cast, cast_floats, merge
from transfer_jax.training.forward import Batch, Forward

LEAST_IMAGES = 4
"""Number of images that the unbiased estimate needs."""
MOST_IMAGES = 32
"""Number of images of a batch that are used at most, because activations of the lowest blocks are large."""

Grams = Callable[[Arrays, Batch], dict[str, jax.Array]]


def make_grams(forward: Forward, blocks: Iterable[str]) -> Grams:
    """Returns the pure function from arrays and a batch to the Gram matrix `(batch, batch)` of each block.

    The Gram matrix is that of the flattened activations of each image, minus their mean over the batch.

    Args:
        forward: The forward pass, in inference mode and without low-rank updates.
        blocks: Names of the blocks.
    """
    wanted = frozenset(blocks)

    def grams(arrays: Arrays, batch: Batch) -> dict[str, jax.Array]:
        model = merge(forward.graphdef, cast(arrays, forward.dtype))
        x = cast_floats(forward.inputs(batch), forward.dtype)
        found = {}
        for name, each in model.backbone.activations(x, forward.start, wanted).items():
            rows = jnp.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(each)], 1)
            rows = rows.astype(jnp.float32)
            rows -= rows.mean(0)
            found[name] = jnp.matmul(rows, rows.T, precision="highest")
        return found

    return grams


def make_plasticity(forward: Forward, blocks: Iterable[str]) -> Callable[..., dict[str, jax.Array]]:
    """Returns the pure function `(arrays, reference, batch) -> plasticity` of each block, `()`.

    The plasticity is 1 minus the linear CKA of a batch's activations with both sets of arrays, by the biased
    estimate. It is 0 if the activations are equal up to rotation and scale.

    Source: as a measure for freezing, Wang et al. 2022 (Egeria), arXiv:2201.06227.

    Args:
        forward: The forward pass, in inference mode and without low-rank updates.
        blocks: Names of the blocks.
    """
    grams = make_grams(forward, blocks)

    def plasticity(arrays: Arrays, reference: Arrays, batch: Batch) -> dict[str, jax.Array]:
        now, then = grams(arrays, batch), grams(reference, batch)
        return {
            name: 1
            - jnp.vdot(now[name], then[name])
            / jnp.maximum(jnp.linalg.norm(now[name]) * jnp.linalg.norm(then[name]), 1e-30)
            for name in now
        }

    return plasticity


def make_similarity(forward: Forward, blocks: Iterable[str]) -> Callable[..., dict[str, jax.Array]]:
    """Returns the pure function `(arrays, reference, batch) -> terms` of each block, on the first images.

    The terms `(3,)` are the `dependence` of the activations with both sets of arrays, and of each set with
    itself. `cka` of their sums over batches is an estimate that does not depend on the batch size: Nguyen et
    al. 2021, arXiv:2010.15327.

    Args:
        forward: The forward pass, in inference mode and without low-rank updates.
        blocks: Names of the blocks.
    """
    grams = make_grams(forward, blocks)

    def similarity(arrays: Arrays, reference: Arrays, batch: Batch) -> dict[str, jax.Array]:
        batch = jax.tree.map(lambda rows: rows[:MOST_IMAGES], batch)
        now, then = grams(arrays, batch), grams(reference, batch)
        return {
            name: jnp.stack([dependence(*pair) for pair in ((x, then[name]), (x, x), (then[name],) * 2)])
            for name, x in now.items()
        }

    return similarity


def dependence(k: jax.Array, l: jax.Array) -> jax.Array:  # noqa: E741
    """Returns the unbiased estimate of the Hilbert-Schmidt independence criterion.

    Its mean is 0 for independent activations.

    Source: Song et al. 2012, Journal of Machine Learning Research 13, "Feature selection via dependence
    maximization", equation 5.

    Args:
        k: Gram matrix `(batch, batch)` of at least `LEAST_IMAGES` images.
        l: Another Gram matrix `(batch, batch)` of the same images.
    """
    count = len(k)
    k, l = (jnp.where(jnp.eye(count, dtype=bool), 0, gram) for gram in (k, l))  # noqa: E741
    total = jnp.vdot(k, l, precision="highest")
    total += k.sum() * l.sum() / ((count - 1) * (count - 2))
    total -= 2 * jnp.vdot(k.sum(0), l.sum(0), precision="highest") / (count - 2)
    return total / (count * (count - 3))


def cka(terms: Mapping[str, Any]) -> dict[str, float]:
    """Returns the CKA of each block from its terms; blocks with constant activations are left out."""
    found = {}
    for name, (both, now, then) in terms.items():
        if now > 0 and then > 0:
            found[name] = float(both) / math.sqrt(float(now) * float(then))
    return found
