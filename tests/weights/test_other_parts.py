import pytest

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.weights.key_mapping import KeyMap
from transfer_jax.weights.other_parts import head_layers, other_parts


def others(model: str, library: str, rest: dict[str, tuple[int, ...]]) -> set[str]:
    _, params, stats = split(create_model(model, 3, abstract_backbone=True, abstract_head=True))
    key_map = KeyMap(model, library)
    used = [key for path in {**params, **stats} if path.startswith("backbone/") for key in key_map.keys(path)]
    return other_parts(rest, used, key_map, layers=head_layers(model))


@pytest.mark.parametrize(
    ("model", "library", "rest"),
    [
        ("resnet18", "timm", {"fc.0.weight": (9, 512), "fc.0.bias": (9,), "fc.1.running_mean": (9,)}),
        ("resnet18", "timm", {"last_linear.weight": (9, 512)}),
        ("resnet18", "timm", {"loss_fn.weight": (3,), "criterion.centers": (3, 512)}),
        ("resnet18", "timm", {"projector.0.weight": (64, 512), "predictor.bn.weight": (64,)}),
        ("resnet18", "timm", {"my_mlp.0.weight": (64, 512), "my_mlp.0.bias": (64,)}),
        ("resnet18", "timm", {"arcface.kernel": (512, 30), "dense/kernel": (512, 3)}),
        ("efficientnet_lite_tiny", "timm", {"classifier.1.weight": (7, 128), "classifier.1.bias": (7,)}),
        ("efficientnet_lite_tiny", "efficientnet-pytorch", {"_fc.3.weight": (7, 128)}),
        ("convnext_tiny", "timm", {"head.fc.1.weight": (7, 768), "head.fc.1.bias": (7,)}),
        ("vit_tiny_patch16_224", "timm", {"head.mlp.fc1.weight": (7, 192), "aux_head.weight": (2, 192)}),
    ],
)
def test_heads_and_losses_are_other_parts(model, library, rest):
    assert others(model, library, rest) == set(rest)


@pytest.mark.parametrize(
    ("model", "library", "key", "shape"),
    [
        ("resnet18", "timm", "layer1.2.conv1.weight", (64, 64, 3, 3)),  # ResNet-34
        ("resnet18", "timm", "layer5.0.conv1.weight", (64, 64, 3, 3)),
        ("vgg11", "torchvision", "features.28.weight", (512, 512, 3, 3)),
        ("efficientnet_lite_tiny", "timm", "blocks.7.0.conv.weight", (9, 9, 1, 1)),
        ("efficientnet_lite_tiny", "timm", "conv_head.bias", (128,)),
        ("vit_tiny_patch16_224", "timm", "reg_token", (1, 4, 192)),
        ("vit_tiny_patch16_224", "timm", "dist_token", (1, 1, 192)),
        ("vit_tiny_patch16_224", "timm", "fc_norm.weight", (192,)),
        ("vit_tiny_patch16_224", "timm", "norm_pre.weight", (192,)),
        ("vit_tiny_patch16_224", "timm", "attn_pool.q.weight", (192, 192)),
        ("convnext_tiny", "timm", "head.norm2.weight", (768,)),
        ("resnet18", "timm", "scale", (1,)),
    ],
)
def test_parts_of_other_networks_are_not(model, library, key, shape):
    assert others(model, library, {key: shape, "head.0.weight": (5, 5)}) == {"head.0.weight"}
