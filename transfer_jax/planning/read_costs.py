"""The requests and bytes that an epoch reads from object storage, in each order of the images."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from transfer_jax.data import ImageDataset
from transfer_jax.data.order import BLOCK, WINDOW, make_order
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.storage.range_reads import GAP
from transfer_jax.training.run import batch_size

_BATCHES, _BLOCKS, _RUNS = 32, 8, 2
"""Numbers of batches, of blocks and of longer runs of neighbours whose requests are counted."""
_RUN = 8 * BLOCK
_GRID = 256
_NEGLIGIBLE = 1e-3


@dataclasses.dataclass(frozen=True)
class ReadCost:
    """The reads of one host from object storage, an estimate.

    Attributes:
        reads: The images that are read, such as "an epoch, --order blocks".
        images: Number of images that the host reads.
        requests: Number of requests if the cache is empty at first.
        bytes: Number of bytes of these requests.
        second: The fraction of the bytes that the cache has in the second epoch; None without one.
        later: The same after many epochs.
        note: What to change, in a sentence; empty if there is nothing.
    """

    reads: str
    images: int
    requests: int
    bytes: int
    second: float | None = None
    later: float | None = None
    note: str = ""


def read_costs(resolved: ResolvedRun, hosts: int = 1) -> tuple[ReadCost, ...]:
    """Returns what a run reads from object storage; nothing if its training images are elsewhere.

    The requests of a few batches and blocks are those that reading them sends. Nothing is read.

    Args:
        resolved: The run.
        hosts: Number of hosts, each with a cache of its own.
    """
    images = resolved.train
    count, batch = len(images), batch_size(resolved.config, len(images))
    block = min(BLOCK, max(1, count // 64))
    once = _per_image(images.in_pieces(), _neighbours(count, _RUN, _RUNS))
    if once is None:
        return ()
    found, caching = [], [resolved.caching(parts).boundary is not None for parts in resolved.phases]
    if not all(caching):
        own, cache = max(1, count // batch) * batch // hosts, images.cache_bytes / (once[1] * count)
        everywhere = _per_image(images, _batches(resolved, batch, hosts))
        blocks = _per_image(images.in_pieces(), _neighbours(count, block, _BLOCKS))
        for order, each, gap in (("global", everywhere, GAP), ("blocks", blocks, 0)):
            requests, size = _shared(each or once, once[1] + gap, cache, hosts)
            found.append(
                ReadCost(
                    f"an epoch, --order {order}",
                    own,
                    round(own * requests),
                    round(own * size),
                    *cached_fractions(cache, hosts),
                    _note(images.cache_bytes, WINDOW * block * size) if order == "blocks" else "",
                )
            )
    if any(caching):
        own = -(-count // hosts)
        found.append(ReadCost("once, for cached features", own, round(own * once[0]), round(own * once[1])))
    return tuple(found)


def cached_fractions(cache: float, hosts: int) -> tuple[float, float]:
    """Returns the fractions of reads that a cache saves in the second epoch, and after many epochs.

    Each host reads another random part of the images in each epoch. The least recently used ones are dropped.
    An image that was read at `u` of an epoch and is needed at `v` of the `k`-th epoch after it, both from 0
    to 1, is still there if the images that were read in between have room.

    Args:
        cache: Size of the cache as a fraction of the size of all images.
        hosts: Number of hosts, each with a cache of its own.
    """
    u, v = np.meshgrid(*[(np.arange(_GRID) + 0.5) / _GRID] * 2)
    second = later = 0.0
    unread, chance = (
        1.0,
        1 / hosts,
    )  # In whole epochs between the two; that a host reads an image in an epoch.
    while unread > _NEGLIGIBLE:
        between = 1 - (1 - (1 - u) * chance) * unread * (1 - v * chance)
        found = chance * unread * float((between <= cache).mean())
        second, later = second or found, later + found
        if not found:
            break
        unread *= 1 - chance
    return second, later


def _batches(resolved: ResolvedRun, batch: int, hosts: int) -> list[np.ndarray]:
    """Returns the images of one host in some batches of an epoch in the order `global`."""
    count = len(resolved.train)
    order, steps = make_order(count, batch, resolved.config.seed), max(1, count // batch)
    chosen = np.unique(np.linspace(0, steps - 1, _BATCHES).astype(int))
    return [order[int(step)][: max(1, batch // hosts)] for step in chosen]


def _neighbours(count: int, block: int, number: int) -> list[np.ndarray]:
    """Returns the images of some blocks of neighbours."""
    chosen = np.unique(np.linspace(0, max(0, count // block - 1), number).astype(int))
    return [np.arange(first * block, min((first + 1) * block, count)) for first in chosen.tolist()]


def _per_image(images: ImageDataset, lists: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Returns requests and bytes of an image if lists of them are read; None if none is in object storage."""
    requests = size = 0
    for rows in lists:
        for each in images.requests(rows) or ():
            requests, size = requests + 1, size + each.stop - each.start
    total = sum(map(len, lists))
    return (requests / total, size / total) if requests else None


def _shared(each: tuple[float, float], least: float, cache: float, hosts: int) -> tuple[float, float]:
    """Returns requests and bytes of an image less those that bring it with an image of another batch.

    Args:
        each: Requests and bytes of an image in a batch of its own.
        least: Bytes of an image if all images are read in their order. They are fewer if requests are for
            groups of images, such as row groups of Parquet files, or pieces at the ends of blocks. Bytes
            between ranges of one request are no such group.
        cache: Size of the cache as a fraction of the size of all images.
        hosts: Number of hosts, each of which reads most of the groups.
    """
    cache = min(cache, 1.0)
    factor = 1 - cache + cache * min(1.0, hosts * least / each[1])
    return each[0] * factor, each[1] * factor


def _note(cache: int, needed: float) -> str:
    if cache >= needed:
        return ""
    return (
        f"the cache of {cache / 1e9:.3g} GB is too small for the {needed / 1e9:.3g} GB of {WINDOW} blocks, "
        "so that more is read; raise --object-gigabytes"
    )
