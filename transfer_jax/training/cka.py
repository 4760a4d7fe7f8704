"""How alike a network's activations are under two sets of arrays, block by block.

Source: linear CKA, Kornblith et al. 2019, arXiv:1905.00414. It compares the Gram matrices of a batch's
activations, and is 1 where these are alike up to rotation and scale.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.models.flat_arrays import Arrays, cast, merge
from transfer_jax.training.step import Batch, Forward

LEAST_IMAGES = 4
"""Images of a batch that the unbiased estimate needs."""
MOST_IMAGES = 32
"""Images of a batch that it takes: activations of the lowest blocks are large."""

Grams = Callable[[Arrays, Batch], dict[str, jax.Array]]


def make_grams(forward: Forward, blocks: Iterable[str]) -> Grams:
    """The pure function from arrays and a batch to the Gram matrix `(batch, batch)` of each of some blocks.

    A row is all that an image's activations are, flattened and less the batch's mean. The definition in
    `forward` is in inference mode, and has no low-rank updates.
    """
    wanted = frozenset(blocks)

    def grams(arrays: Arrays, batch: Batch) -> dict[str, jax.Array]:
        model = merge(forward.graphdef, cast(arrays, forward.dtype))
        x, found = forward.inputs(batch).astype(forward.dtype), {}
        for name in model.backbone.span(forward.start, None):
            x = getattr(model.backbone, name)(x)
            if name in wanted:
                rows = x.reshape(len(x), -1).astype(jnp.float32)
                rows -= rows.mean(0)
                found[name] = jnp.matmul(rows, rows.T, precision="highest")
        return found

    return grams


def make_plasticity(forward: Forward, blocks: Iterable[str]) -> Callable[..., dict[str, jax.Array]]:
    """The pure function `(arrays, reference, batch) -> plasticity` of each of some blocks.

    1 minus the linear CKA of a batch's activations under both sets of arrays, as it is defined for a batch
    that is all there is: 0 if they are alike up to rotation and scale.

    Source: as a measure of freezing, Wang et al. 2022 (Egeria), arXiv:2201.06227.
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
    """The pure function `(arrays, reference, batch) -> terms` of each of some blocks, on the first images.

    The terms `(3,)` are `dependence` of the activations under both sets of arrays, and of each with itself.
    Their sums over batches go into `cka`, which is then an estimate that does not depend on the size of the
    batches: Nguyen et al. 2021, arXiv:2010.15327.
    """
    grams = make_grams(forward, blocks)

    def similarity(arrays: Arrays, reference: Arrays, batch: Batch) -> dict[str, jax.Array]:
        batch = {name: rows[:MOST_IMAGES] for name, rows in batch.items()}
        now, then = grams(arrays, batch), grams(reference, batch)
        return {
            name: jnp.stack([dependence(*pair) for pair in ((x, then[name]), (x, x), (then[name],) * 2)])
            for name, x in now.items()
        }

    return similarity


def dependence(k: jax.Array, l: jax.Array) -> jax.Array:  # noqa: E741
    """The unbiased estimate of the Hilbert-Schmidt independence criterion, 0 on average if independent.

    Source: Song et al. 2012, Journal of Machine Learning Research 13, "Feature selection via dependence
    maximization", equation 5.

    Args:
        k: Gram matrix `(batch, batch)` of at least `LEAST_IMAGES` images.
        l: Another one of the same images.
    """
    count = len(k)
    k, l = (jnp.where(jnp.eye(count, dtype=bool), 0, gram) for gram in (k, l))  # noqa: E741
    total = jnp.vdot(k, l, precision="highest")
    total += k.sum() * l.sum() / ((count - 1) * (count - 2))
    total -= 2 * jnp.vdot(k.sum(0), l.sum(0), precision="highest") / (count - 2)
    return total / (count * (count - 3))


def cka(terms: Mapping[str, Any]) -> dict[str, float]:
    """The similarity of each block from its terms; a block whose activations are all the same has none."""
    found = {}
    for name, (both, now, then) in terms.items():
        if now > 0 and then > 0:
            found[name] = float(both) / math.sqrt(float(now) * float(then))
    return found
