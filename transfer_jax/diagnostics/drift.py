"""How far a run has taken each block from where it began: its weights, and what they compute."""

from collections.abc import Mapping

import jax
import numpy as np

from transfer_jax.data import image_fetch, listed_batches
from transfer_jax.diagnostics.finished_run import FinishedRun, NotApplicable
from transfer_jax.models.flat_arrays import block_of
from transfer_jax.training.cka import LEAST_IMAGES, MOST_IMAGES, cka, make_similarity
from transfer_jax.training.step import Forward


def weight_distance(
    start: Mapping[str, np.ndarray | jax.Array], end: Mapping[str, np.ndarray | jax.Array]
) -> dict[str, float]:
    """The distance of each block's parameters from where they began, relative to their norm there.

    Args:
        start: The parameters at the start, by path.
        end: Those at the end.

    Returns:
        The norm of the difference over the norm at the start, over all parameters of a block together. A
        block that began with zeros has none.
    """
    squares: dict[str, np.ndarray] = {}
    for path, array in start.items():
        before, after = np.asarray(array, np.float64), np.asarray(end[path], np.float64)
        terms = np.array([np.sum((after - before) ** 2), np.sum(before**2)])
        squares[block_of(path)] = squares.get(block_of(path), np.zeros(2)) + terms
    return {block: float(np.sqrt(moved / size)) for block, (moved, size) in squares.items() if size > 0}


def similarity_to_start(finished: FinishedRun, images: int) -> dict[str, float]:
    """Linear CKA of each block's activations to those at the start of the run, on images held out.

    An unbiased estimate from small batches (see `training/cka.py`), so that it is 0 on average for
    unrelated activations, however many there are, and memory for one batch is enough. The images are drawn by
    the seed of the run. Blocks up to the lowest one that changed are 1: the same arrays see the same images.

    Args:
        finished: The run.
        images: How many of the images held out to look at, at most.

    Raises:
        NotApplicable: If fewer than four are held out.
    """
    run, held_out = finished.run, finished.images[1]
    count = min(images, len(held_out))
    if count < LEAST_IMAGES:
        raise NotApplicable(
            f"{count} images are too few to compare activations on; {LEAST_IMAGES} are needed"
        )
    batches = -(-count // MOST_IMAGES)
    size = count // batches
    drawn = np.random.default_rng(run.config.seed).permutation(len(held_out))[: batches * size]
    same = run.block_names[: run.block_names.index(finished.boundary) + 1] if finished.boundary else ()
    above = run.block_names[len(same) :]
    if not above:
        return dict.fromkeys(same, 1.0)
    forward = Forward(graphdef=run.graphdef, start=None, preprocessing=run.preprocessing)
    similarity = jax.jit(make_similarity(forward, above))
    fetch, terms = image_fetch(held_out, run.preprocessing), dict.fromkeys(above, np.zeros(3))
    finished.progress.start("comparing activations", batches * size)
    for batch in listed_batches(fetch, list(drawn.reshape(batches, size)), threads=run.config.threads):
        found = jax.device_get(similarity(finished.end, finished.start, {"image": batch["image"]}))
        terms = {name: terms[name] + found[name] for name in above}
        finished.progress.advance(size)
    finished.progress.finish()
    return {**dict.fromkeys(same, 1.0), **cka(terms)}
