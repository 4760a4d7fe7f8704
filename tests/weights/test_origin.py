"""Files that fit several networks, which compute differently."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from transfer_jax.models import create_model
from transfer_jax.models.registry import variant_of
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.key_mapping import KeyMap
from transfer_jax.weights.origin import (
    WrongNetworkError,
    check_origin,
    origin_of,
    recommendation,
    rivals,
)
from transfer_jax.weights.specs import WeightsSpec
from transfer_jax.weights.structures import backbone_shapes

RECORD = {"format": "pt", "transfer_jax": json.dumps({"model": "efficientnet_lite0"})}


def spec_of(model: str, address: str, **fields) -> WeightsSpec:
    preprocessing = variant_of(model).preprocessing
    return WeightsSpec(name=address, model=model, address=address, preprocessing=preprocessing, **fields)


@pytest.mark.parametrize(
    ("model", "library", "name", "metadata"),
    [
        ("mobilenet_v2", "torchvision", "w.pth", {}),
        ("keras_mobilenet_v2", "keras", "w.h5", {}),
        ("efficientnet_b0", "timm", "efficientnet_b0-355c32eb.pth", {}),
        ("tf_efficientnet_b0", "timm", "tf_efficientnet_b0_ns-c0e6a31c.pth", {}),
        (
            "tf_efficientnet_b0",
            "timm",
            "models--timm--tf_efficientnet_b0.in1k/snapshots/1/model.safetensors",
            {},
        ),
        ("tf_efficientnet_b0", "timm", "hf://timm/tf_efficientnet_b0.in1k/model.safetensors", {}),
        ("efficientnet_b0", "timm", "w.pth", {"arch": "efficientnet_b0"}),
        (
            "tf_efficientnet_b0",
            "timm",
            "efficientnet_b0.pth",
            {"args.model": "tf_efficientnet_b0.ns_jft_in1k"},
        ),
        pytest.param(
            *("tv_efficientnet_b5", "torchvision", "efficientnet_b5.pth", {}), marks=pytest.mark.extended
        ),
        ("efficientnet_lite0", "timm", "tf_efficientnet_lite0-0aa007d2.pth", {}),
        ("efficientnet_lite0", "timm", "exported-timm.safetensors", RECORD),
        ("efficientnet_lite0", "efficientnet-pytorch", "w.pth", {}),
        ("tf_efficientnet_b0", "transformers-base", "w.bin", {}),
        ("vit_base_patch32_clip_quickgelu_224", "timm", "vit_base_patch32_clip_224.openai.pth", {}),
        ("resnet18", "timm", "w.pth", {}),
    ],
)
def test_the_origin_is_found(model, library, name, metadata):
    assert check_origin(spec_of(model, name), library, metadata) == ""


@pytest.mark.parametrize(
    ("model", "library", "name", "metadata", "message"),
    [
        (
            "keras_mobilenet_v2",
            "torchvision",
            "w.pth",
            {},
            "are of mobilenet_v2, not of keras_mobilenet_v2: it has the names of torchvision, .*epsilon is "
            r"0\.001 instead of 1e-05, TensorFlow's padding is on .*choose the network mobilenet_v2$",
        ),
        (
            "efficientnet_b0",
            "timm",
            "runs/tf_efficientnet_b0_ns.pth",
            {},
            "are of tf_efficientnet_b0, not of efficientnet_b0: its path has the name 'tf_efficientnet_b0_ns",
        ),
        (
            "efficientnet_b0",
            "timm",
            "efficientnet_b0.pth",
            {"arch": "tf_efficientnet_b0"},
            "are of tf_efficientnet_b0, not of efficientnet_b0: according to arch in the file",
        ),
        (
            "efficientnet_lite0",
            "timm",
            "efficientnet_lite0_ra-37913777.pth",
            {},
            "are of timm's efficientnet_lite0, .*padded equally.*efficientnet_lite0 is not available here",
        ),
        (
            "efficientnet_b0",
            "timm",
            "w.pth",
            {},
            "may be of efficientnet_b0 or of tf_efficientnet_b0, .*give them as efficientnet_b0:w.pth$",
        ),
        (
            "efficientnet_lite0",
            "timm",
            "w.pth",
            {},
            "may be of efficientnet_lite0 or of timm's efficientnet_lite0",
        ),
        (
            "vit_base_patch32_clip_224",
            "transformers",
            "w.pth",
            {},
            "or of vit_base_patch32_clip_quickgelu_224, .*activation is gelu instead of quick_gelu",
        ),
        (
            "resnet50",
            "torchvision",
            "resnetaa50_a1h-4cf422b3.pth",
            {},
            "are of resnetaa50, not of resnet50: ",
        ),
        ("resnetaa50", "torchvision", "w.pth", {}, "may be of resnetaa50 or of resnet50, .*antialias is on"),
    ],
)
def test_a_wrong_or_doubtful_network_is_refused_with_both_names(model, library, name, metadata, message):
    with pytest.raises(WrongNetworkError, match=message):
        check_origin(spec_of(model, name), library, metadata)


@pytest.mark.parametrize(
    ("models", "library", "file", "content", "expected"),
    [
        (
            ("efficientnet_b0", "tf_efficientnet_b0"),
            "timm",
            "config.json",
            {"architecture": "tf_efficientnet_b0"},
            "tf_efficientnet_b0",
        ),
        (
            ("vit_base_patch32_clip_224", "vit_base_patch32_clip_quickgelu_224"),
            "transformers",
            "config.json",
            {"vision_config": {"hidden_act": "quick_gelu"}},
            "vit_base_patch32_clip_quickgelu_224",
        ),
        (
            ("mobilenet_v2", "keras_mobilenet_v2"),
            "transformers",
            "config.json",
            {"tf_padding": True, "layer_norm_eps": 0.001},
            "keras_mobilenet_v2",
        ),
        (
            ("efficientnet_b0", "tf_efficientnet_b0"),
            "transfer_jax",
            "model.json",
            {"model": "tf_efficientnet_b0"},
            "tf_efficientnet_b0",
        ),
        (
            ("efficientnet_b0", "tf_efficientnet_b0"),
            "timm",
            "w.safetensors.json",
            {"model": "tf_efficientnet_b0"},
            "tf_efficientnet_b0",
        ),
    ],
)
def test_a_description_beside_the_file_says_which(models, library, file, content, expected, tmp_path):
    (tmp_path / file).write_text(json.dumps(content))
    path = tmp_path / "w.safetensors"
    path.touch()
    found = origin_of(models, library, spec_of(models[0], str(path)), {})
    assert found.networks == (expected,)
    assert str(tmp_path / file) in found.evidence


def test_the_user_may_state_the_network(tmp_path):
    path = tmp_path / "w.pth"
    path.touch()
    spec = find_spec("efficientnet_b0", f"efficientnet_b0:{path}")
    assert spec.address == str(path)
    assert check_origin(spec, "timm", {}) == ""
    with pytest.raises(
        WrongNetworkError, match=r"are of tf_efficientnet_b0, not of efficientnet_b0: .* states it"
    ):
        check_origin(find_spec("efficientnet_b0", f"tf_efficientnet_b0:{path}"), "timm", {})


def test_networks_that_only_lack_names_in_the_library_are_no_rivals():
    assert rivals("mobilenet_v2", "torchvision") == ("keras_mobilenet_v2",)
    assert rivals("keras_mobilenet_v2", "keras") == ()


def test_a_file_without_a_name_is_of_the_usual_network():
    note = check_origin(spec_of("resnet50", "w.pth"), "torchvision", {})
    assert "; resnetaa50 has the same arrays but computes differently" in note
    assert note.endswith(" (in resnet50, antialias is off instead of on)")
    assert check_origin(spec_of("resnet50", "resnet50-0676ba61.pth"), "torchvision", {}) == ""
    assert rivals("resnet50", "transformers") == ()


def test_another_preprocessing_is_noted():
    note = check_origin(spec_of("deit_tiny_patch16_224", "w.pth"), "timm", {})
    assert note.startswith(
        "the preprocessing is that of deit_tiny_patch16_224; vit_tiny_patch16_224 computes"
    )
    assert check_origin(spec_of("deit_tiny_patch16_224", "w.pth", notes=("from a file",)), "timm", {}) == ""


def test_a_file_of_torchvision_does_not_load_into_the_network_of_keras(tmp_path):
    key_map = KeyMap("mobilenet_v2", "torchvision")
    arrays = {}
    for path, shape in backbone_shapes("mobilenet_v2").items():
        shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
        (key,) = key_map.keys(path)
        arrays[key] = np.ones(shape, np.float16)
    path = tmp_path / "w.safetensors"
    save_file(arrays, path)
    model = create_model("keras_mobilenet_v2", 2, abstract_backbone=True)
    with pytest.raises(WrongNetworkError, match="are of mobilenet_v2, not of keras_mobilenet_v2"):
        load_pretrained(model, find_spec("keras_mobilenet_v2", str(path)))
    model = create_model("mobilenet_v2", 2, abstract_backbone=True)
    assert load_pretrained(model, find_spec("mobilenet_v2", str(path))).complete


@pytest.mark.parametrize(
    ("models", "library", "name", "advice"),
    [
        (
            ["keras_mobilenet_v2", "mobilenet_v2"],
            "torchvision",
            "w.pth",
            "It is of mobilenet_v2: it has the names of torchvision, .* keras_mobilenet_v2 would compute",
        ),
        (
            ["efficientnet_b0", "tf_efficientnet_b0"],
            "timm",
            "w.pth",
            "efficientnet_b0 and tf_efficientnet_b0 compute differently .*state it as MODEL:PATH",
        ),
        (
            ["efficientnet_lite0"],
            "timm",
            "efficientnet_lite0.pth",
            "It is of timm's efficientnet_lite0, which is not available here",
        ),
        (["resnet18"], "timm", "w.pth", "^$"),
        (
            ["resnet50", "resnetaa50"],
            "torchvision",
            "w.pth",
            "^resnet50 and resnetaa50 compute differently .*antialias is off instead of on",
        ),
        (["resnet50", "resnetaa50"], "torchvision", "resnetaa50.bin", "^It is of resnetaa50: its path has"),
    ],
)
def test_one_of_several_networks_is_recommended(models, library, name, advice, tmp_path):
    path = tmp_path / name
    path.touch()
    assert re.search(advice, recommendation(models, library, str(path), {}))
