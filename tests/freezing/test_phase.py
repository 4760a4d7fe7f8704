import dataclasses
import math

import pytest

from transfer_jax.freezing import Phase
from transfer_jax.freezing.selectors import SelectorError, head, top

HEAD = Phase(name="head", train="head", epochs=3, learning_rate=1e-3)
TOP = Phase(name="top", train="top( 2 )", epochs=1, learning_rate=1e-4, augment=True, views=4, clip_norm=1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "phase 'head': epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be a number, got nan"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\)"),
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\]"),
        ({"layer_decay": 1.1}, r"layer_decay must be in \(0, 1\]"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0"),
        ({"views": -1}, "views must be at least 0"),
        ({"views": 2}, "views=2 needs augment=True"),
        (
            {"optimizer": "adamx"},
            r"optimizer must be one of 'adamw', 'sgd', 'rmsprop', 'lion', .*Optax has no 'adamx'",
        ),
        ({"shape": "slanted"}, "warmup must be above 0 if shape is slanted, got 0.0"),
        ({"first_freeze": 0.0}, r"first_freeze must be in \(0, 1\]"),
        ({"decay_start": -1}, "decay_start must be at least 0"),
        ({"tests_per_epoch": 0}, "tests_per_epoch must be at least 1"),
        ({"l2_sp": -1.0}, "l2_sp must be at least 0"),
        ({"lora": "head", "lora_rank": 0}, "rank must be a whole number of at least 1"),
        ({"interpolate": 0.0}, r"interpolate must be in \(0, 1\]"),
        (
            {"feature_brightness": 0.1, "cache": "off"},
            "feature_brightness needs cached features",
        ),
        ({"feature_flips": "both", "cache": "off"}, "feature_flips needs cached features, but cache is off"),
        ({"feature_flips": "up"}, "feature_flips must be one of"),
        ({"clock": "run"}, r"clock must be one of \('phase', 'schedule'\)"),
        ({"statistic": "norm"}, r"statistic must be one of \('none', 'rgn', 'snr'\)"),
        ({"moments": "keep"}, r"moments must be one of \('carry', 'reset'\)"),
        ({"controller": "autofreeze", "adapter": "ia3"}, "a controller and an adapter cannot be combined"),
        ({"shape": "step"}, "shape must be one of .*'cosine'.*, got 'step': Optax has no 'step'"),
        ({"norm": "eval"}, r"norm must be one of \('frozen', 'train'\)"),
        ({"cache": "on"}, r"cache must be one of \('auto', 'off', 'require'\)"),
    ],
)
def test_invalid_fields_raise(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HEAD, **change)


def test_invalid_selector_raises():
    with pytest.raises(SelectorError, match="invalid selector 'everything'"):
        dataclasses.replace(HEAD, train="everything")


def test_selectors_are_stored_as_expressions():
    assert TOP.train == "top(2)"
    assert TOP.selector == top(2)
    assert dataclasses.replace(TOP, train=head | top(1)).train == "(head | top(1))"


@pytest.mark.parametrize(
    ("augment", "views", "cacheable"), [(False, 0, True), (True, 0, False), (True, 3, True)]
)
def test_augmentation_without_views_is_not_cacheable(augment, views, cacheable):
    assert dataclasses.replace(HEAD, augment=augment, views=views).cacheable == cacheable
