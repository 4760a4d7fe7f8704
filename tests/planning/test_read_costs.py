"""Estimates of reads from object storage, against those of an epoch from a folder used like a bucket."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from local_bucket import folder

from transfer_jax.config import TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.data.joined import with_validation
from transfer_jax.data.order import make_order
from transfer_jax.data.remote.pack import pack
from transfer_jax.data.remote.packed_records import from_records
from transfer_jax.planning.read_costs import cached_fractions, read_costs
from transfer_jax.storage import object_cache
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.piece_reader import PieceReader
from transfer_jax.storage.range_reads import RangeReader

IMAGES, BATCH = 640, 16


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """The address of packed images of 2 kB, whose pieces have 16 kB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(object_cache.FOLDER, str(tmp_path_factory.mktemp("objects")))
        patch.setattr(PieceReader.__init__, "__kwdefaults__", {"piece": 2**14})
        with folder(tmp_path_factory.mktemp("bucket"), patch) as kind:
            pixels = np.random.default_rng(0).integers(0, 255, (IMAGES, 24, 24, 3)).astype(np.uint8)
            pack(from_arrays(pixels, np.arange(IMAGES) % 2, ("a", "b")), f"{kind}://bucket/packed", shards=3)
            yield f"{kind}://bucket/packed"


def run_of(train: Any, *cached: bool) -> Any:
    """A resolved run with phases, each on cached features or on images."""
    boundaries = ["top" if each else None for each in cached]
    return SimpleNamespace(
        train=train,
        config=TrainConfig(images="packed", batch_size=BATCH, seed=3),
        phases=boundaries,
        caching=lambda boundary: SimpleNamespace(boundary=boundary),
    )


def sent(train: Any, order: Any, host: int, hosts: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Requests and bytes of an epoch of a host with an empty cache."""
    found, remote = [], RangeReader._remote

    def recorded(self, ranges):
        found.extend(each.stop - each.start for each in ranges)
        return remote(self, ranges)

    batches = make_order(len(train), BATCH, 3, order, hosts)
    read = train.in_pieces() if order == "blocks" else train
    own = np.array_split(np.arange(BATCH), hosts)[host]
    with monkeypatch.context() as patch:
        patch.setattr(RangeReader, "_remote", recorded)
        for step in range(len(train) // BATCH):
            read.contents(batches[step][own])
    return len(found), sum(found)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("hosts", [1, 4])
@pytest.mark.parametrize("place", [0, 1])
def test_they_are_those_of_an_epoch(bucket, tmp_path, monkeypatch, place, hosts, joined):
    train = from_records(bucket, cache=ObjectCache(tmp_path))
    if joined:  # With validation images of another source.
        pixels = np.zeros((4, 8, 8, 3), np.uint8)
        whole = with_validation(train, from_arrays(pixels, [0, 1, 0, 1], ("a", "b")), "others")
        train = whole.part(range(IMAGES))
    cost = read_costs(run_of(train, False), hosts)[place]
    order = ("global", "blocks")[place]
    assert cost.reads == f"an epoch, --order {order}"
    requests, size = sent(train, order, 0, hosts, monkeypatch)
    assert cost.images == IMAGES // hosts
    assert cost.requests == pytest.approx(requests, rel=0.15)
    assert cost.bytes == pytest.approx(size, rel=0.15)
    assert (cost.second, cost.later) == (1 / hosts, pytest.approx(1, abs=0.01))


def test_images_whose_features_are_cached_are_read_once(bucket, tmp_path):
    train = from_records(bucket, cache=ObjectCache(tmp_path))
    (once,) = read_costs(run_of(train, True, True), hosts=2)
    assert (once.images, once.second) == (IMAGES // 2, None)
    assert [each.reads for each in read_costs(run_of(train, True, False))][-1] == once.reads


@pytest.mark.parametrize(("gigabytes", "noted"), [(20, False), (1e-5, True)])
def test_a_cache_that_is_too_small_for_the_blocks_is_noted(bucket, tmp_path, gigabytes, noted):
    train = from_records(bucket, cache=ObjectCache(tmp_path, gigabytes=gigabytes))
    everywhere, blocks = read_costs(run_of(train, False))
    assert ("raise --object-gigabytes" in blocks.note) == noted
    assert everywhere.note == ""


def test_local_images_cost_nothing():
    train = from_arrays(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1], ("a", "b"))
    assert read_costs(run_of(train, False)) == ()


@pytest.mark.parametrize("hosts", [1, 4])
@pytest.mark.parametrize("cache", [0.1, 0.6])
def test_fractions_in_the_cache_are_those_of_a_simulation(cache, hosts):
    images, epochs, rng = 2_000, 30, np.random.default_rng(0)
    kept: dict[int, None] = {}
    hits = []
    for _ in range(epochs):
        own = rng.permutation(images)[: images // hosts].tolist()
        hits.append(0)
        for image in own:
            hits[-1] += image in kept
            kept.pop(image, None)
            kept[image] = None
            while len(kept) > cache * images:
                del kept[next(iter(kept))]
    found = np.array(hits) / (images // hosts)
    second, later = cached_fractions(cache, hosts)
    assert second == pytest.approx(found[1], abs=0.03)
    assert later == pytest.approx(found[-8:].mean(), abs=0.03)
