"""The smallest of each family against every library that has it; `benchmarks/parity.py` has them all."""

import importlib.util
import warnings

import parity
import pytest
from originals import ORIGINALS

from transfer_jax.models.registry import variant_of

SMALLEST = ("vgg11", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "resnet50d")
CASES = [case for case in ORIGINALS if case[0] in SMALLEST]


@pytest.mark.parametrize(("name", "library"), CASES, ids=map("-".join, CASES))
def test_blocks_logits_and_parameters_are_theirs(name, library):
    for package in ("torch", library):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = parity.randomized(name, ORIGINALS[name, library])
        model = parity.loaded(name, network)
        for size in (variant_of(name).preprocessing.image_size, parity.odd_size(name)):
            errors = parity.errors(name, library, network, model, size)
            assert "logits" in errors
            assert len(errors) >= len(model.backbone.block_names)  # every block, but for VGG's flattened grid
            assert {block: error for block, error in errors.items() if not error <= 1e-4} == {}
        parity.check_round_trip(name, library, network, model)
