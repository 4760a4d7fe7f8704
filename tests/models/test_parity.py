"""Parity of each family's smallest networks with other libraries; `benchmarks/parity.py` compares all.

`test_transformer_families.py`, `test_convolutional_families.py` and `test_maxvit.py` compare tiny networks of
the other families.
"""

import importlib.util
import warnings

import numpy as np
import parity
import pytest
from originals import CLASSES, ORIGINALS
from originals.original import torchvision_network

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of
from transfer_jax.weights.identify import closest_families, matching_models
from transfer_jax.weights.key_mapping import KeyMap, to_library
from transfer_jax.weights.loading import WeightsMismatchError, load_arrays
from transfer_jax.weights.specs import WeightsSpec

SMALLEST = (
    *("squeezenet1_0", "squeezenet1_1"),
    *("vgg11", "vgg11_bn", "resnet18", "resnet50", "resnext50_32x4d", "resnet50d"),
    *("densenet121", "inception_v3", "xception"),
    *("regnet_y_800mf", "regnety_002", "regnet_x_400mf", "regnetx_002"),
    *("resnetv2_50x1_bit", "resnetv2_50", "mixer_s32_224"),
    *("mobilenet_v2", "mobilenetv2_050", "mobilenet_v3_small", "mobilenetv3_small_100"),
    *("keras_mobilenet_v2", "keras_mobilenet_v2_035", "keras_mobilenet_v3_small"),
    *("efficientnet_b0", "tf_efficientnet_b0", "efficientnet_v2_s", "tf_efficientnetv2_s"),
    *("convnext_tiny", "convnextv2_atto"),
    *("vit_tiny_patch16_224", "vit_base_patch32_224", "deit_tiny_patch16_224"),
    "deit_tiny_distilled_patch16_224",
    *("efficientnet_lite0", "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"),
    "hiera_tiny_224",
)
PACKAGES = {"efficientnet-pytorch": "efficientnet_lite_pytorch"}
SMALLEST_IN_KERAS = [
    (name, "keras")
    for name in (
        *("keras_vgg16", "keras_resnet50", "keras_densenet121"),
        *("keras_inception_v3", "keras_xception", "tf_efficientnetv2_b0"),
    )
]
NOT_SMALLEST = [("tf_efficientnetv2_s", "keras")]  # Keras has smaller networks
ONLY_IN = {  # networks whose other libraries are compared by a smaller network of the family
    "vgg11_bn": "torchvision",
    "resnet50": "torchvision",
    "resnext50_32x4d": "timm",
    "regnet_x_400mf": "torchvision",
    "regnetx_002": "timm",
    "keras_mobilenet_v2_035": "transformers",
    "vit_base_patch32_224": "torchvision",
    "deit_tiny_patch16_224": "transformers",
    "swinv2_tiny_window8_256": "timm",
    "hiera_tiny_224": "timm",
}
# The networks without a classifier of transformers, one of each family.
WITHOUT_CLASSIFIER = (
    *(
        "resnet18",
        "resnetv2_50x1_bit",
        "regnet_y_800mf",
        "mobilenet_v2",
        "tf_efficientnet_b0",
        "convnext_tiny",
    ),
    *("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"),
)
CASES = [
    (name, library)
    for name, library in ORIGINALS
    if (name in SMALLEST or (name, library) in SMALLEST_IN_KERAS)
    and (name, library) not in NOT_SMALLEST
    and library == ONLY_IN.get(name, library)
    and (library != "transformers-base" or name in WITHOUT_CLASSIFIER)
]
# Keras's DenseNet pads as densenet121; the classifier of its VGG is for the native size only.
NOT_ODD = [("keras_densenet121", "keras"), ("keras_vgg16", "keras")]
# One size a case: a network is compared at an odd size in one library, at its native size in the others.
ODD = [case for case in dict(CASES).items() if case not in NOT_ODD]
SIZED = [(*case, int(case in ODD)) for case in CASES]


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "library", "size"),
    SIZED,
    ids=[f"{name}-{library}-{('native', 'odd')[size]}" for name, library, size in SIZED],
)
def test_blocks_logits_and_parameters_match(name, library, size):
    own = PACKAGES[library] if library in PACKAGES else library.split("-")[0]
    for package in (ORIGINALS[name, library].package, own):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = parity.compare(name, library, parity.sizes(name, library)[size], back=True)
    wanted = {*create_model(name, 2, abstract_backbone=True).backbone.block_names}
    wanted |= {"logits"} if KeyMap(name, library).keys("head/classifier/kernel") else set()
    absent = wanted - {*errors}
    # These blocks are no module in some libraries.
    assert absent <= {"pre_logits", "norm5", "norm"}
    assert {block: error for block, error in errors.items() if not error <= parity.LIMIT} == {}


@pytest.mark.extended
@pytest.mark.parametrize(
    ("name", "prefix", "head"),
    [("squeezenet1_1", "classifier.1.", False), ("inception_v3", "AuxLogits.", True)],
)
def test_unsupported_parts_of_files_are_skipped(name, prefix, head):
    pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torchvision_network(name, 0)
    arrays = {key: value.numpy() for key, value in network.state_dict().items()}
    theirs = {key for key in arrays if key.startswith(prefix) and not key.endswith("num_batches_tracked")}
    assert theirs
    shapes = {key: array.shape for key, array in arrays.items()}
    assert matching_models(shapes, closest_families(shapes))[0] == [name]
    spec = WeightsSpec(name=name, model=name, address="", preprocessing=variant_of(name).preprocessing)
    report = load_arrays(create_model(name, CLASSES, abstract_backbone=True), arrays, spec, head=head)
    assert {key for key in report.skipped if key in arrays} == theirs


def test_an_unsupported_classifier_is_neither_read_nor_written():
    arrays = {"features.0.bias": np.zeros(64, np.float32), "classifier.1.bias": np.zeros(2, np.float32)}
    model = create_model("squeezenet1_1", 2)
    spec = WeightsSpec(
        name="mine",
        model="squeezenet1_1",
        address="",
        preprocessing=variant_of("squeezenet1_1").preprocessing,
    )
    with pytest.raises(WeightsMismatchError, match=r"missing in the file: .*head/classifier"):
        load_arrays(model, arrays, spec, head=True, skip=["^backbone/"])
    with pytest.raises(ValueError, match="torchvision has no parameter for head/classifier/bias"):
        to_library("squeezenet1_1", split(model)[1])
