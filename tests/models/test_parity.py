"""The smallest of each family against every library that has it; `benchmarks/parity.py` has them all."""

import importlib.util
import warnings

import parity
import pytest
from originals import ORIGINALS

from transfer_jax.models import create_model

SMALLEST = (
    *("squeezenet1_0", "squeezenet1_1"),
    *("vgg11", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "resnet50d"),
    "densenet121",
    *("mobilenet_v2", "mobilenetv2_050", "mobilenet_v3_small", "mobilenetv3_small_100"),
    *("efficientnet_b0", "tf_efficientnet_b0", "efficientnet_v2_s", "tf_efficientnetv2_s"),
    *("convnext_tiny", "convnextv2_atto"),
    *("vit_tiny_patch16_224", "vit_base_patch32_224", "deit_tiny_patch16_224"),
    *("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"),
)
CASES = [case for case in ORIGINALS if case[0] in SMALLEST]


@pytest.mark.parametrize("size", [0, 1], ids=["native", "odd"])
@pytest.mark.parametrize(("name", "library"), CASES, ids=map("-".join, CASES))
def test_blocks_logits_and_parameters_are_theirs(name, library, size):
    for package in ("torch", library):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = parity.compare(name, library, parity.sizes(name)[size])
    wanted = {*create_model(name, 2, abstract_backbone=True).backbone.block_names}
    wanted |= {"logits"} if parity.has_head(name, library) else set()
    assert wanted - {*errors} <= {"pre_logits", "norm5"}  # for which not all have a module
    assert {block: error for block, error in errors.items() if not error <= 1e-4} == {}
