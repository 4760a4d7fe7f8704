"""The configs of ImageNet for pods: each of them loads, and is planned without reading images."""

import dataclasses
import re

import numpy as np
import pytest

from transfer_jax.config.files import load_config, shipped_configs
from transfer_jax.config.imagenet import LAST_BLOCKS, imagenet_config
from transfer_jax.data import from_arrays
from transfer_jax.planning.plan import plan
from transfer_jax.runs.resolve import resolve

NAMES = [name for name in shipped_configs() if name.startswith("imagenet")]
FAST = "imagenet1k_resnet50_all", "imagenet1k_vit_b16_head", "imagenet1k_vit_b16_last"
CHIPS = {"4x4": 16, "8x8": 64, "16x16": 256}


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.extended) for name in NAMES]
)
def test_a_config_is_planned(name):
    config = load_config(name)
    text = shipped_configs()[name].read_text(encoding="utf-8")
    of, *_, part = name.split("_")
    classes = {"imagenet1k": 1000, "imagenet21k": 21_843}[of]
    labels = np.arange(max(2 * classes, 16_384)) % classes
    images = np.zeros((len(labels), 1, 1), np.uint8)
    dataset = from_arrays(images, labels, tuple(map(str, range(classes))))
    resolved = resolve(
        dataclasses.replace(config, weights="none", val_fraction=0.5, eval_images=None), dataset=dataset
    )
    found = plan(resolved)
    (phase,) = found.phases
    caching = resolved.caching(phase)
    assert (caching.boundary is None) == (part == "all")
    if part == "head":
        assert caching.boundary == "pre_logits"
    elif part == "last":
        assert phase.boundary is not None
        assert phase.boundary.startswith(("blocks.9", "blocks.21", "layer3"))
    rows = {"imagenet1k": 1_281_167, "imagenet21k": 14_197_122}[of] + 50_000
    assert caching.bytes / max(1, caching.rows) * rows < config.feature_gigabytes * 1e9
    assert f"transfer-jax train {name} --" in text
    (topology,) = re.findall(r"v5e:(\d+x\d+)", text)
    assert f"on a v5e-{CHIPS[topology]}." in text
    assert config.batch_size % CHIPS[topology] == 0
    assert f"{config.batch_size:,} images" in text.replace("\n", " ")


def test_all_combinations_are_shipped():
    sets, networks, parts = (
        ("imagenet1k", "imagenet21k"),
        ("vit_b16", "vit_l16", "resnet50"),
        ("head", "last", "all"),
    )
    assert {*NAMES} == {f"{a}_{b}_{c}" for a in sets for b in networks for c in parts}


def test_settings_replace_the_defaults():
    config = imagenet_config(
        "photos", "resnet50", "last", chips=4, images_per_chip=8, epochs=2, precision="float32", seed=3
    )
    assert (config.precision, config.seed, config.batch_size) == ("float32", 3, 32)
    assert config.schedule.phases[0].train == LAST_BLOCKS["resnet50"]
