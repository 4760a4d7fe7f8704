import dataclasses

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.data import Augmentation
from transfer_jax.features import RowFormat
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.training.cache_choice import choose_caching, forbidden

PHASE = Phase(name="only", train="head", epochs=4, learning_rate=0.1)
ROW_BYTES = 7 * 7 * 32 * 4


def config(phase: Phase = PHASE, **settings) -> TrainConfig:
    return TrainConfig(images="x", schedule=Schedule((phase,)), **settings)


def choose(config: TrainConfig, boundary: str | None = "top", stored: str = "float32"):
    (phase,) = config.schedule.phases
    return choose_caching(
        config, phase, boundary, images=(100, 20), row_format=RowFormat.single((7, 7, 32), stored)
    )


def changed(**changes) -> Phase:
    return dataclasses.replace(PHASE, **changes)


@pytest.mark.parametrize(
    ("changes", "boundary", "cached", "reason"),
    [
        ({}, "pre_logits", True, "its frozen part is a prefix"),
        ({"cache": "require"}, "top", True, "its frozen part is a prefix"),
        ({"cache": "off"}, "top", False, "the cache is off"),
        ({}, None, False, "its lowest block trains"),
        ({"augment": True}, "top", False, "it augments each image again in each epoch (set `views`)"),
        ({"augment": True, "views": 4}, "top", True, "its frozen part is a prefix"),
        ({"augment": True, "views": 5}, "top", False, "5 views are more work than 4 epochs"),
        ({"augment": True, "views": 5, "cache": "require"}, "top", True, "its frozen part is a prefix"),
    ],
)
def test_which_phases_train_on_features(changes, boundary, cached, reason):
    found = choose(config(changed(**changes)), boundary)
    assert (found.boundary, found.reason) == (boundary if cached else None, reason)


@pytest.mark.parametrize(
    ("changes", "eval_every", "rows", "live"),
    [
        ({}, 0, 120, 480),
        ({"keep_epoch": "last"}, 0, 120, 420),
        ({}, 1, 120, 480),
        ({}, 3, 120, 440),
        ({"augment": True, "views": 3}, 0, 320, 480),
        ({"epochs": 1}, 0, 120, 120),
    ],
)
def test_passes_of_the_frozen_prefix(changes, eval_every, rows, live):
    found = choose(config(changed(**changes), eval_every=eval_every))
    assert (found.rows, found.bytes, found.passes) == (rows, rows * ROW_BYTES, (rows, live))
    assert found.boundary == "top"


@pytest.mark.parametrize(
    ("stored", "bytes_a_row"),
    [("bfloat16", 7 * 7 * 32 * 2), ("float16", 7 * 7 * 32 * 2), ("int8", 7 * 7 * 32 + 32 * 4)],
)
def test_bytes_of_stored_precisions(stored, bytes_a_row):
    assert choose(config(), stored=stored).bytes == 120 * bytes_a_row


def test_a_budget_that_is_too_small():
    enough, little = (120 * ROW_BYTES / 1e9, (120 * ROW_BYTES - 1) / 1e9)
    assert choose(config(feature_gigabytes=enough)).boundary == "top"
    found = choose(config(feature_gigabytes=little))
    assert (found.boundary, found.bytes) == (None, 120 * ROW_BYTES)
    assert found.reason.startswith("its features take 0.000753 GB, more than feature_gigabytes=")
    with pytest.raises(ValueError, match="phase 'only' requires a cache, but its features take"):
        choose(config(changed(cache="require"), feature_gigabytes=little))


@pytest.mark.parametrize(
    ("changes", "boundary", "message"),
    [
        ({}, None, "phase 'only' requires a cache, but its lowest block trains"),
        (
            {"augment": True},
            "top",
            r"phase 'only' requires a cache, but it augments each image again in each epoch \(set `views`",
        ),
    ],
)
def test_an_impossible_cache_is_an_error_if_it_is_required(changes, boundary, message):
    phase = changed(cache="require", **changes)
    with pytest.raises(ValueError, match=message):
        forbidden(config(phase), phase, boundary)


def test_mixing_trains_on_images():
    mixing = Augmentation(mixup=1.0)
    assert choose(config(augmentation=mixing)).boundary == "top"
    assert choose(config(changed(augment=True), augmentation=mixing)).boundary is None


@pytest.mark.parametrize(("boundary", "cached"), [("pre_logits", True), ("top", False)])
def test_a_head_on_all_blocks_is_cached_at_the_last_boundary_only(boundary, cached):
    assert (choose(config(taps=True), boundary).boundary is not None) == cached


@pytest.mark.parametrize(
    ("flips", "shape", "message"),
    [
        (
            "horizontal",
            (1280,),
            r"feature_flips='horizontal'.*'top' have the shapes \[\(1280,\)\]",
        ),
        ("both", (197, 384), r"only maps \(height, width, channels\) can be flipped"),
        ("turns", (7, 8, 32), "only square maps can be rotated"),
    ],
)
def test_only_maps_are_flipped(flips, shape, message):
    def choose(shape: tuple[int, ...]):
        row_format = RowFormat.single(shape, "float32")
        phase = changed(feature_flips=flips)
        return choose_caching(config(), phase, "top", images=(100, 20), row_format=row_format)

    with pytest.raises(ValueError, match=message):
        choose(shape)
    for good in ((7, 7, 32), (7, 8, 32)) if flips != "turns" else ((7, 7, 32),):
        assert choose(good).boundary
