"""Parity of tiny networks of MaxViT and CoAtNet with timm; `benchmarks/parity.py` compares all networks."""

import dataclasses
from typing import Any

import jax
import parity
import pytest
from originals import ORIGINALS
from originals.original import CLASSES, Original

from transfer_jax.models import coatnet, maxvit, registry
from transfer_jax.models.family import HALF, Variant
from transfer_jax.models.maxvit_layers import Shape
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.nn.activations import gelu_tanh

SIDE = 64
KNOWN: dict[str, Any] = {"depths": (1, 1, 2, 1), "widths": (32, 64, 96, 128), "stem": (16, 32)}
NORM = {"pre_logits": "head.global_pool"}
HIDDEN = {"norm": "head.flatten", "hidden": "head.pre_logits", "pre_logits": "head.pre_logits"}
TF: dict[str, Any] = {
    "activation": gelu_tanh,
    "attention_activation": gelu_tanh,
    "same": True,
    "positions": "tf",
}
TF_BIASES: dict[str, Any] = {"of_output": True, "stem_bias": True, "conv_bias": True, "heads_first": False}
COAT: dict[str, Any] = {"ratio": 0.25, "pre_activation": True, "squeeze": jax.nn.relu}
# the family, the shape, the function of timm with the options, its arguments, and timm's names of modules
TINY = {
    "maxvit_tf": (
        maxvit.FAMILY,
        Shape(**KNOWN, **TF, **TF_BIASES, ratio=0.25, hidden=128, conv_epsilon=1e-3, epsilon=1e-5),
        ("_tf_cfg", {}, {"stem_bias": True, "head_hidden_size": 128}),
        HIDDEN,
    ),
    "maxvit_rmlp": (
        maxvit.FAMILY,
        Shape(**KNOWN, positions=24, layer_scale=True),
        ("_rw_max_cfg", {"rel_pos_type": "mlp", "rel_pos_dim": 24, "init_values": 1e-6}, {}),
        NORM,
    ),
    "coatnet_early": (
        coatnet.FAMILY,
        Shape(**KNOWN, **COAT, pools=True, max_pools=True, early=True, shortcut_bias=False),
        (
            "_rw_coat_cfg",
            {"pool_type": "max", "conv_attn_early": True, "transformer_shortcut_bias": False},
            {},
        ),
        NORM,
    ),
}


@pytest.mark.extended
@pytest.mark.parametrize("name", TINY)
def test_blocks_logits_and_parameters_match_timm(name, monkeypatch):
    pytest.importorskip("timm")
    from timm.models import maxxvit

    family, shape, (options_of, arguments, more), modules = TINY[name]
    blocks = {"block_type": ("M",) * 4} if family is maxvit.FAMILY else {}
    config = maxxvit.MaxxVitCfg(
        embed_dim=shape.widths,
        depths=shape.depths,
        stem_width=shape.stem,
        **blocks,
        **getattr(maxxvit, options_of)(**arguments),
        **more,
    )
    preprocessing = Preprocessing(image_size=SIDE, mean=HALF, std=HALF)
    tiny = dataclasses.replace(family, variants={name: Variant(shape=shape, preprocessing=preprocessing)})
    monkeypatch.setitem(registry._REGISTERED, name, tiny)
    original = Original(
        lambda name, size: maxxvit.MaxxVit(config, img_size=size, num_classes=CLASSES),
        lambda name, block: modules.get(block, block),
    )
    monkeypatch.setitem(ORIGINALS, (name, "timm"), original)
    errors = parity.compare(name, "timm", SIDE, back=True)
    found = registry.create_model(name, 2, abstract_backbone=True).backbone.block_names
    assert errors.keys() == {*found, "logits"}
    assert {block: error for block, error in errors.items() if not error <= parity.LIMIT} == {}


@pytest.mark.parametrize("name", ["maxvit_nano_rw_256", "coatnet_nano_rw_224", "hiera_tiny_224"])
def test_images_are_as_large_as_whole_windows(name):
    with pytest.raises(ValueError, match=r"image_size must be a multiple of .*32 pixels, got 100"):
        registry.create_model(name, 2, image_size=100, abstract_backbone=True)
