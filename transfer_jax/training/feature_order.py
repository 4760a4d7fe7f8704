"""The order of training images whose features are in object storage."""

from typing import TYPE_CHECKING

from transfer_jax.features.shard_order import ShardOrder
from transfer_jax.training.run import Run

if TYPE_CHECKING:
    from transfer_jax.training.feature_extractor import CachedFeatures

EXACT_BYTES = 10**9
"""Largest size of features in object storage that each process reads as a whole."""


def shard_order(run: Run, features: "CachedFeatures", seed: int, views: int) -> ShardOrder | None:
    """Returns an order that reads the features shard by shard; None for local features and small ones.

    Args:
        run: The run.
        features: The features of the training images.
        seed: Seed of the order.
        views: Augmented views of each image in the cache; 0 without augmentation.
    """
    cache = features.cache
    if not cache.is_remote or cache.manifest.bytes <= EXACT_BYTES:
        return None
    images, shard_rows = len(features.rows), cache.manifest.shard_rows
    in_view = len(cache) // (views or 1)

    def prefetch(ranges: list[tuple[int, int]]) -> None:
        shards: dict[int, None] = {}
        for first, last in ranges:
            low, high = int(features.rows[first]), int(features.rows[last - 1])
            for start in range(0, len(cache), in_view):
                shards |= dict.fromkeys(range((start + low) // shard_rows, (start + high) // shard_rows + 1))
        cache.prefetch(shards)

    return ShardOrder(
        images,
        run.batch_size,
        seed,
        shard=max(1, shard_rows * images // in_view),
        places=run.strategy.rows(run.batch_size),
        prefetch=prefetch,
    )
