"""Parity of tiny networks of the convolutional families with timm: blocks, logits, loading and export.

`benchmarks/parity.py` compares the networks of the published sizes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import parity
import pytest
from originals import ORIGINALS
from originals.original import CLASSES, Original
from originals.tinyvit import TinyVitOriginal

from transfer_jax.models import (
    convnext,
    fastvit,
    ghostnet,
    mobilenetv4,
    registry,
    repvgg,
    res2net,
    resnest,
    resnet,
    seresnet,
    tinyvit,
)
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Variant
from transfer_jax.models.mobilenetv4 import Attention, Fused, Inverted, Plain
from transfer_jax.models.preprocessing import Preprocessing

SIDE, EVEN_SIDE = 75, 96  # no multiple of the strides; antialiased ResNets of timm need multiples
DEPTHS = (2, 1, 1, 1)


def mobilenetv4_of(*stages: list[str], **options: Any) -> Any:
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.mobilenetv3 import MobileNetV3

    known = {"num_classes": CLASSES, "num_features": 1280, "stem_size": 8, "head_norm": True}
    return MobileNetV3(decode_arch_def([*stages, ["cn_r1_k1_s1_c24"]]), **known, **options)


def resnet_of(block: str = "Bottleneck", module: str = "resnet", **options: Any) -> Any:
    import importlib

    from timm.models.resnet import ResNet

    block = getattr(importlib.import_module(f"timm.models.{module}"), block)
    return ResNet(block, DEPTHS, num_classes=CLASSES, **options)  # pyright: ignore[reportArgumentType]


def resnetrs_of() -> Any:
    import functools

    from timm.layers.create_attn import get_attn

    attention = functools.partial(get_attn("se"), rd_ratio=0.25)  # pyright: ignore[reportArgumentType]
    options = {"stem_type": "deep", "stem_width": 32, "replace_stem_pool": True, "avg_down": True}
    return resnet_of(block_args={"attn_layer": attention}, **options)


def resnetaa_of() -> Any:
    import torch

    return resnet_of("BasicBlock", aa_layer=torch.nn.AvgPool2d)


def repvgg_of() -> Any:
    from timm.models.byobnet import ByobNet, ByoModelCfg, _rep_vgg_bcfg

    blocks = _rep_vgg_bcfg((3, 1, 1, 1), (0.25, 0.25, 0.25, 0.25), groups=4)
    options = {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 0.0625, "rd_divisor": 1}}
    return ByobNet(ByoModelCfg(blocks, stem_type="rep", stem_chs=16, **options), num_classes=CLASSES)


def ghostnet_of() -> Any:
    from timm.models.ghostnet import _create_ghostnet

    return _create_ghostnet("ghostnetv2_100", 0.25, version="v2", num_classes=CLASSES)


def fastvit_of(**options: Any) -> Any:
    import functools

    from timm.models.fastvit import FastVit, RepConditionalPosEnc

    position = functools.partial(RepConditionalPosEnc, spatial_shape=(7, 7))
    known = {"layers": (1,) * 3, "embed_dims": (32, 64, 128), "mlp_ratios": (3,) * 3}
    mixers = {"token_mixers": ("repmixer", "repmixer", "attention"), "pos_embs": (None, None, position)}
    return FastVit(**known, **mixers, num_classes=CLASSES, lkc_use_act=True, **options)


def fastvit2_of() -> Any:
    import functools

    from timm.layers.norm import LayerNorm2d

    normalize = functools.partial(LayerNorm2d, eps=1e-5)
    return fastvit_of(norm_layer=normalize, stem_use_scale_branch=False, downsamples=(False, True, True))


def convnext_of(**options: Any) -> Any:
    from timm.models.convnext import ConvNeXt

    known = {"depths": (1, 2, 1, 1), "dims": (16, 32, 64, 128), "num_classes": CLASSES}
    return ConvNeXt(**known, **options)


def tinyvit_of() -> Any:
    from timm.models.tiny_vit import TinyVit

    return TinyVit(
        embed_dims=(32, 32, 64, 64),
        depths=(1, 1, 2, 1),
        num_heads=(1, 1, 2, 2),
        window_sizes=(7, 4, 7, 3),
        num_classes=CLASSES,
    )


RESNEST = {"stem_type": "deep", "stem_width": 32, "avg_down": True, "module": "resnest"}
SPLIT = {"block": "ResNestBottleneck", **RESNEST}
# the family, the shape, timm's network, and timm's modules that have other names than our blocks
TINY: dict[str, tuple[Family, Any, Callable[[], Any], dict[str, str]]] = {
    "mobilenetv4_hybrid": (
        mobilenetv4.FAMILY,
        mobilenetv4.Shape(
            8,
            (
                (8, (Fused(),)),
                (16, (Inverted(3, 5, 4), Attention(2, 8, 2), Inverted(0, 0, 2), Attention(2, 8))),
            ),
            top=24,
            scaled=True,
            smooth=True,
        ),
        lambda: mobilenetv4_of(
            ["er_r1_k3_s2_e4_c8"],
            [
                *("uir_r1_a3_k5_s2_e4_c16", "mqa_r1_k3_h2_s1_v2_d8_c16"),
                *("uir_r1_a0_k0_s1_e2_c16", "mqa_r1_k3_h2_s1_d8_c16"),
            ],
            act_layer="gelu",
            layer_scale_init_value=1e-5,
        ),
        {"stem": "bn1", "top": "blocks.2.0", "conv_head": "norm_head", "pre_logits": "flatten"},
    ),
    "mobilenetv4_blur": (
        mobilenetv4.FAMILY,
        mobilenetv4.Shape(
            8, ((8, (Plain(3), Plain(1))), (16, (Inverted(5, 0, 4),))), 24, downsampling="blur"
        ),
        lambda: mobilenetv4_of(
            ["cn_r1_k3_s2_c8", "cn_r1_k1_s1_c8"], ["uir_r1_a5_k0_s2_e4_c16"], aa_layer="blurpc"
        ),
        {"stem": "bn1", "top": "blocks.2.0", "conv_head": "norm_head", "pre_logits": "flatten"},
    ),
    "seresnext_t": (
        seresnet.FAMILY,
        resnet.Shape(DEPTHS, groups=32, group_width=4, stem=resnet.TIERED, average=True, attention="se"),
        lambda: resnet_of(
            cardinality=32,
            base_width=4,
            stem_width=32,
            stem_type="deep_tiered",
            avg_down=True,
            block_args={"attn_layer": "se"},
        ),
        {"stem": "maxpool", "pre_logits": "global_pool"},
    ),
    "ecaresnet_light": (
        seresnet.FAMILY,
        resnet.Shape(DEPTHS, average=True, attention="eca"),
        lambda: resnet_of(avg_down=True, block_args={"attn_layer": "eca"}),
        {"stem": "maxpool", "pre_logits": "global_pool"},
    ),
    "resnetrs": (
        seresnet.FAMILY,
        resnet.Shape(DEPTHS, stem=resnet.DEEP, average=True, attention="se", squeeze=0.25, learned_pool=True),
        resnetrs_of,
        {"stem": "maxpool", "pre_logits": "global_pool"},
    ),
    "resnetaa": (
        seresnet.FAMILY,
        resnet.Shape(DEPTHS, bottleneck=False, antialias=True),
        resnetaa_of,
        {"stem": "maxpool", "pre_logits": "global_pool"},
    ),
    "resnest": (
        resnest.FAMILY,
        resnest.Shape(DEPTHS, groups=2, group_width=40, stem=resnet.DEEP, average=True, splits=4, early=True),
        lambda: resnet_of(
            cardinality=2, base_width=40, block_args={"radix": 4, "avd": True, "avd_first": True}, **SPLIT
        ),
        {"stem": "maxpool", "pre_logits": "global_pool"},
    ),
    "res2net": (
        res2net.FAMILY,
        res2net.Shape(DEPTHS, group_width=14, parts=8),
        lambda: resnet_of("Bottle2neck", "res2net", base_width=14, block_args={"scale": 8}),
        {"stem": "maxpool", "pre_logits": "global_pool"},
    ),
    "repvgg": (
        repvgg.FAMILY,
        repvgg.Shape((3, 1, 1, 1), (16, 32, 64, 128), groups=4, squeezes=True),
        repvgg_of,
        {"pre_logits": "head.global_pool"},
    ),
    "ghostnetv2": (
        ghostnet.FAMILY,
        ghostnet.Shape(0.25, v2=True),
        ghostnet_of,
        {"stem": "act1", "top": "blocks.9.0", "conv_head": "act2", "pre_logits": "flatten"},
    ),
    "fastvit": (
        fastvit.FAMILY,
        fastvit.Shape((1, 1, 1), 32, 3, squeezes=True, active=True),
        lambda: fastvit_of(se_downsamples=(False, False, True), downsamples=(False, True, True)),
        {"pre_logits": "head.global_pool"},
    ),
    "fastvit2": (
        fastvit.FAMILY,
        fastvit.Shape((1, 1, 1), 32, 3, active=True, layer_norm=True, branched_stem=False),
        fastvit2_of,
        {"pre_logits": "head.global_pool"},
    ),
    "convnext_zepto": (
        convnext.FAMILY,
        convnext.Shape(
            (1, 2, 1, 1), (16, 32, 64, 128), convolutional=True, stem="active", simple=True, epsilon=1e-5
        ),
        lambda: convnext_of(conv_mlp=True, norm_layer="simplenorm", stem_type="overlap_act", norm_eps=1e-5),
        {"norm": "head.norm", "pre_logits": "head.drop"},
    ),
    "convnext_mlp": (
        convnext.FAMILY,
        convnext.Shape((1, 2, 1, 1), (16, 32, 64, 128), stem="tiered", hidden=24),
        lambda: convnext_of(stem_type="overlap_tiered", head_hidden_size=24),
        {"norm": "head.norm", "hidden": "head.pre_logits", "pre_logits": "head.drop"},
    ),
    "tinyvit": (
        tinyvit.FAMILY,
        tinyvit.Shape((32, 32, 64, 64), (1, 1, 2, 1), windows=(4, 7, 3)),
        tinyvit_of,
        {"norm": "head.flatten", "pre_logits": "head.drop"},
    ),
}


@pytest.mark.extended
@pytest.mark.parametrize("name", TINY)
def test_blocks_logits_and_parameters_match_timm(name, monkeypatch):
    pytest.importorskip("timm")
    family, shape, make, modules = TINY[name]
    preprocessing = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    tiny = dataclasses.replace(family, variants={name: Variant(shape=shape, preprocessing=preprocessing)})
    monkeypatch.setitem(registry._REGISTERED, name, tiny)
    kind = TinyVitOriginal if name == "tinyvit" else Original
    original = kind(lambda name, size: make(), lambda name, block: modules.get(block, block))
    monkeypatch.setitem(ORIGINALS, (name, "timm"), original)
    errors = parity.compare(name, "timm", EVEN_SIDE if name == "resnetaa" else SIDE, back=True)
    blocks = registry.create_model(name, 2, abstract_backbone=True).backbone.block_names
    assert errors.keys() == {*blocks, "logits"}
    assert {block: error for block, error in errors.items() if not error <= parity.LIMIT} == {}


@pytest.mark.extended
def test_dinov3_files_of_transformers_load(monkeypatch):
    transformers = pytest.importorskip("transformers")
    shape = convnext.Shape((1, 2, 1, 1), (16, 32, 64, 128))
    config = transformers.DINOv3ConvNextConfig(
        depths=list(shape.depths), hidden_sizes=list(shape.widths), image_size=SIDE
    )
    case = ("convnext_tiny", "transformers-dinov3")
    variants = convnext.FAMILY.variants
    tiny = {"convnext_tiny": dataclasses.replace(variants["convnext_tiny"], shape=shape)}
    family = dataclasses.replace(convnext.FAMILY, variants=tiny)
    monkeypatch.setitem(registry._REGISTERED, "convnext_tiny", family)
    original = dataclasses.replace(
        ORIGINALS[case], make=lambda name, size: transformers.DINOv3ConvNextModel(config)
    )
    monkeypatch.setitem(ORIGINALS, case, original)
    errors = parity.compare(*case, SIDE, back=True)
    assert "stages.3.blocks.0" in errors
    assert max(errors.values()) <= parity.LIMIT
