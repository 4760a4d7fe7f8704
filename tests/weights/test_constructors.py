import ast

import pytest
from originals import ORIGINALS

from transfer_jax.models.registry import FAMILIES, model_names, variant_of
from transfer_jax.weights.constructors import Exported, constructor_of, targets
from transfer_jax.weights.key_mapping import KeyMap

HEADED = [
    case
    for case in ORIGINALS
    if KeyMap(*case).keys("head/classifier/kernel") and not (case[1] == "timm" and "_distilled_" in case[0])
]
"""The networks that are compared with those of other libraries, classifier included."""


def constructor(model: str, library: str, size: int | None = None):
    size = size or variant_of(model).preprocessing.image_size
    return constructor_of(library, Exported(model=model, outputs=3, image_size=size, file="it's.bin"))


def test_every_compared_network_has_a_constructor():
    assert len(HEADED) > 200
    missing = [case for case in HEADED if constructor(*case) is None]
    assert missing == []


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_code_is_python_that_assigns_the_model(family):
    for model in family.variants:
        for target in targets(model):
            made = constructor(model, target)
            assert made is not None
            if made.code:
                tree = ast.parse(made.code)
                names = {
                    node.id
                    for node in ast.walk(tree)
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
                }
                functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
                assert "model" in names | functions, (model, target)
                assert "it's.bin" in made.code


@pytest.mark.parametrize(
    ("model", "library", "text"),
    [
        ("efficientnet_lite0", "timm", 'create_model("tf_efficientnet_lite0", num_classes=3, checkpoint'),
        ("tv_efficientnet_b5", "timm", 'create_model("efficientnet_b5", num_classes=3, bn_eps=0.001,'),
        ("resnet18", "torchvision", 'get_model("resnet18", num_classes=3)'),
        ("vit_base_patch16_224", "torchvision", 'get_model("vit_b_16", num_classes=3)'),
        ("keras_mobilenet_v2_035", "keras", "MobileNetV2(alpha=0.35, weights=None"),
        ("resnet50", "transformers", "ResNetConfig(depths=[3, 4, 6, 3], hidden_sizes=[256, 512, 1024, 2048]"),
        ("vit_tiny_patch16_224", "vision_transformer", '**MODEL_CONFIGS["ViT-Ti_16"]'),
        ("mixer_s32_224", "big_vision", 'mlp_mixer.Model(num_classes=3, variant="S/32")'),
        ("resnet18", "onnx", 'providers=["CPUExecutionProvider"]'),
        ("resnetv2_50x1_bit", "big_transfer", 'KNOWN_MODELS["BiT-M-R50x1"](head_size=3)'),
    ],
)
def test_the_names_of_other_libraries(model, library, text):
    made = constructor(model, library)
    assert made is not None
    assert text in made.code


@pytest.mark.parametrize(
    ("model", "library"),
    [
        ("keras_xception", "timm"),
        ("regnet_y_400mf", "timm"),
        ("siglip_base_patch16_224", "timm"),
        ("deit_tiny_distilled_patch16_224", "timm"),
        ("tf_efficientnet_b0", "torchvision"),
        ("efficientnet_b0", "keras"),
        ("resnet18", "keras"),
    ],
)
def test_networks_that_compute_something_else_are_no_targets(model, library):
    assert constructor(model, library) is None
    assert library not in targets(model)


@pytest.mark.parametrize(
    ("model", "size", "text"),
    [
        ("vit_tiny_patch16_224", 384, "img_size=384"),
        ("vit_tiny_patch16_224", 224, "num_classes=3, checkpoint_path"),
        ("resnet18", 384, "num_classes=3, checkpoint_path"),
    ],
)
def test_networks_with_positions_get_the_image_size(model, size, text):
    made = constructor(model, "timm", size)
    assert made is not None
    assert text in made.code


def test_every_network_can_be_written():
    for model in model_names():
        assert targets(model)[-3:] == ("safetensors", "stablehlo", "onnx")
