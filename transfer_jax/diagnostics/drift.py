"""The change of each block from the start to the end of a run, in weights and in activations."""

from collections.abc import Mapping

import jax
import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data import image_fetch, listed_batches
from transfer_jax.diagnostics.finished_run import FinishedRun, NotApplicable
from transfer_jax.models.paths import block_of
from transfer_jax.training.cka import LEAST_IMAGES, MOST_IMAGES, cka, make_similarity
from transfer_jax.training.forward import INPUTS, Forward


def weight_distance(
    start: Mapping[str, np.ndarray | jax.Array], end: Mapping[str, np.ndarray | jax.Array]
) -> dict[str, float]:
    """Returns the distance of each block's parameters from the start, relative to their norm at the start.

    Args:
        start: Parameters at the start, by path.
        end: Parameters at the end, by path.

    Returns:
        By block, the norm of the difference divided by the norm at the start, over all parameters of the
        block together. Blocks that were all zeros at the start are left out.
    """
    squares: dict[str, np.ndarray] = {}
    for path, array in start.items():
        before, after = np.asarray(array, np.float64), np.asarray(end[path], np.float64)
        terms = np.array([np.sum((after - before) ** 2), np.sum(before**2)])
        squares[block_of(path)] = squares.get(block_of(path), np.zeros(2)) + terms
    return {block: float(np.sqrt(moved / size)) for block, (moved, size) in squares.items() if size > 0}


def similarity_to_start(finished: FinishedRun, images: int) -> dict[str, float]:
    """Returns the linear CKA of each block's activations with those at the start, on validation images.

    It is an unbiased estimate from small batches (see `training/cka.py`): it is 0 on average for unrelated
    activations, whatever their number, and needs memory for one batch only. The images are drawn with the
    seed of the run. Blocks below the lowest changed block have a similarity of 1, because they are unchanged.

    Args:
        finished: The run.
        images: Maximum number of validation images.

    Returns:
        The similarity by block. It is about 0 to 1; the estimate may exceed these limits slightly.

    Raises:
        NotApplicable: If there are fewer than four validation images.
    """
    run, validation = finished.run, finished.images[1]
    count = min(images, len(validation))
    if count < LEAST_IMAGES:
        raise NotApplicable(
            f"{counted(count, 'validation image is', 'validation images are')} too few to compare "
            f"activations; at least {LEAST_IMAGES} are needed"
        )
    batches = -(-count // MOST_IMAGES)
    size = count // batches
    drawn = np.random.default_rng(run.config.seed).permutation(len(validation))[: batches * size]
    same = run.block_names[: run.block_names.index(finished.boundary) + 1] if finished.boundary else ()
    above = run.block_names[len(same) :]
    if not above:
        return dict.fromkeys(same, 1.0)
    forward = Forward(graphdef=run.graphdef, start=None, preprocessing=run.preprocessing)
    similarity = jax.jit(make_similarity(forward, above))
    fetch, terms = image_fetch(validation, run.preprocessing), dict.fromkeys(above, np.zeros(3))
    finished.progress.start("comparing activations", batches * size)
    threads = run.readers(fetch).threads
    for batch in listed_batches(fetch, list(drawn.reshape(batches, size)), threads=threads):
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        found = jax.device_get(similarity(finished.end, finished.start, inputs))
        terms = {name: terms[name] + found[name] for name in above}
        finished.progress.advance(size)
    finished.progress.finish()
    return {**dict.fromkeys(same, 1.0), **cka(terms)}
