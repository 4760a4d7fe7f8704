import numpy as np
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights import find_spec
from transfer_jax.weights.key_mapping import KeyMap, to_library
from transfer_jax.weights.placement import find_network, shapes_of
from transfer_jax.weights.readers import read_weights

LITE0, TINY = "efficientnet_lite0", "efficientnet_lite_tiny"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("backbone/stem/conv/kernel", "_conv_stem.weight"),
        ("backbone/stem/norm/scale", "_bn0.weight"),
        ("backbone/blocks.11/expand/conv/kernel", "_blocks.11._expand_conv.weight"),
        ("backbone/blocks.11/expand/norm/bias", "_blocks.11._bn0.bias"),
        ("backbone/blocks.1/depthwise/norm/mean", "_blocks.1._bn1.running_mean"),
        ("backbone/blocks.0/project/norm/var", "_blocks.0._bn2.running_var"),
        ("backbone/top/conv/kernel", "_conv_head.weight"),
        ("backbone/top/norm/mean", "_bn1.running_mean"),
        ("head/classifier/kernel", "_fc.weight"),
        ("head/classifier/bias", "_fc.bias"),
        ("head/hidden/0/kernel", None),
    ],
)
def test_keys(path, key):
    assert KeyMap(LITE0).keys(path) == (() if key is None else (key,))


def test_paths_and_keys_correspond_one_to_one():
    _, params, stats = split(create_model(LITE0, 1000, abstract_backbone=True))
    keys = [key for path in (*params, *stats) for key in KeyMap(LITE0).keys(path)]
    file = read_weights(find_spec(LITE0).path())
    assert sorted(keys) == sorted(key for key in file if not key.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("model", "library"),
    [
        (name, library)
        for name in (TINY, "vgg11", "vgg11_bn", "resnet18", "resnext50_32x4d", "resnet50d")
        for library in family_of(name).layer_names
        if (name, library) not in {("resnet50d", "transformers"), ("vgg11_bn", "keras")}
        and not ("res" in name and library == "keras")
        and not library.endswith("-base")  # which has no classifier
    ],
)
def test_arrays_go_there_and_come_back_bit_for_bit(model, library):
    """Every array becomes one of the library's keys, and is found again from the file alone."""
    made = create_model(model, 5, hidden=tuple(width // 64 for width in variant_of(model).hidden))
    _, params, stats = split(made)
    arrays = {path: np.asarray(array) for path, array in {**params, **stats}.items()}
    if model.startswith("vgg"):  # the view of the second layer is that of the published width
        arrays = {path: array for path, array in arrays.items() if not path.startswith("head/hidden/1")}
    theirs = to_library(model, arrays, library)
    assert len(theirs) == len(arrays)
    key_map = find_network(model, shapes_of(arrays), shapes_of(theirs), arrays).key_map
    for path, array in arrays.items():
        taken = key_map.import_array(path, [theirs[key] for key in key_map.keys(path)])
        np.testing.assert_array_equal(taken, array, err_msg=path)


@pytest.mark.parametrize(
    ("model", "library", "path", "shape", "expected"),
    [
        (
            "siglip_base_patch16_224",
            "timm",
            "backbone/attn_pool/qkv/kernel",
            (5, 12),
            {"attn_pool.q.weight": (4, 5), "attn_pool.kv.weight": (8, 5)},
        ),
        (
            "vit_base_patch32_clip_224",
            "transformers-base",
            "backbone/embed/cls_token",
            (1, 1, 4),
            {"embeddings.class_embedding": (4,)},
        ),
        (
            "vit_base_patch32_clip_224",
            "transformers",
            "backbone/embed/pos_embed",
            (1, 10, 4),
            {"vision_model.embeddings.position_embedding.weight": (10, 4)},
        ),
        (
            "convnextv2_atto",
            "transformers",
            "backbone/stages.0.blocks.1/grn/scale",
            (4,),
            {"convnextv2.encoder.stages.0.layers.1.grn.weight": (1, 1, 1, 4)},
        ),
        (
            "deit_tiny_patch16_224",
            "transformers",
            "backbone/blocks.2/attn/qkv/bias",
            (6,),
            {
                f"vit.encoder.layer.2.attention.attention.{name}.bias": (2,)
                for name in ("query", "key", "value")
            },
        ),
        (
            "swinv2_tiny_window8_256",
            "torchvision",
            "backbone/layers.0.blocks.1/attn/v_bias",
            (4,),
            {"features.1.1.attn.qkv.bias": (12,)},
        ),
        (
            "swinv2_tiny_window8_256",
            "timm",
            "backbone/layers.0.blocks.1/attn/logit_scale",
            (4,),
            {"layers.0.blocks.1.attn.logit_scale": (4, 1, 1)},
        ),
    ],
)
def test_arrays_are_joined_and_reshaped_there_and_back(model, library, path, shape, expected):
    key_map, array = KeyMap(model, library), np.random.default_rng(0).normal(size=shape)
    theirs = key_map.export_array(path, array)
    assert {key: value.shape for key, value in theirs.items()} == expected
    assert tuple(theirs) == key_map.keys(path)
    np.testing.assert_array_equal(key_map.import_array(path, list(theirs.values())), array)


def test_unknown_names_and_homeless_arrays():
    with pytest.raises(ValueError, match="no names in 'caffe'; choose from torchvision, timm, transformers"):
        KeyMap("resnet18", "caffe")
    with pytest.raises(ValueError, match="torchvision has no parameter for head/hidden/0/kernel of resnet18"):
        to_library("resnet18", {"head/hidden/0/kernel": np.zeros((2, 2))})


def test_parameters_that_are_parts_of_one_array_are_written_together():
    module = "backbone/layers.0.blocks.1/attn"
    query, value = (np.random.default_rng(seed).normal(size=4) for seed in (0, 1))
    arrays = {f"{module}/q_bias": query, f"{module}/v_bias": value}
    written = to_library("swinv2_tiny_window8_256", arrays, "torchvision")
    np.testing.assert_array_equal(written.pop("features.1.1.attn.qkv.bias"), [*query, *np.zeros(4), *value])
    assert written == {}
