"""Parity of tiny networks of all plain vision transformers with timm and transformers."""

import dataclasses
import warnings

import jax.numpy as jnp
import numpy as np
import parity
import pytest
from originals import CLASSES, ORIGINALS

from transfer_jax.models import create_model
from transfer_jax.models.registry import family_of

SIZES = {"width": 32, "depth": 2, "heads": 2, "patch": 8}
IN_TIMM = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8, "mlp_ratio": 3}
HIDDEN = {  # channels inside the perceptrons, where they are not three times the width
    ("vit_giant_patch14_dinov2", "timm"): 48,
    ("vit_giant_patch14_reg4_dinov2", "timm"): 48,
    ("vit_giant_patch14_dinov2", "transformers"): 88,
    ("vit_giant_patch14_dinov2", "transformers-5"): 88,
    **{
        ("vit_small_patch14_dinov2", library): 128
        for library in ("transformers", "transformers-5", "transformers-base")
    },
    ("dinov2_with_registers_small", "transformers"): 128,
}
CASES = (
    ("vit_small_patch16_dinov3", "timm"),
    ("vit_small_plus_patch16_dinov3_qkvb", "timm"),
    ("dinov3_vits16plus", "transformers-base"),
    ("dinov3_vit7b16", "transformers-5"),
    ("eva02_small_patch14_224", "timm"),
    ("eva02_base_patch14_448", "timm"),
    ("eva02_base_patch16_clip_224", "timm"),
    ("eva_giant_patch14_224", "timm"),
    ("vit_mediumd_patch16_rope_reg1_gap_256", "timm"),
    ("beitv2_base_patch16_224", "timm"),
    ("beit_base_patch16_224", "transformers"),
    ("beit_base_patch16_224", "transformers-5"),
    ("deit3_small_patch16_224", "timm"),
    ("vit_giant_patch14_dinov2", "timm"),
    ("vit_giant_patch14_dinov2", "transformers"),
    ("vit_giant_patch14_dinov2", "transformers-5"),
    ("vit_giant_patch14_reg4_dinov2", "timm"),
    ("vit_little_patch16_reg4_gap_256", "timm"),
    ("aimv2_large_patch14_224", "timm"),
    ("aimv2_large_patch14_224", "transformers-base"),
    ("vit_pe_core_base_patch16_224", "timm"),
    ("vit_pe_core_gigantic_patch14_448", "timm"),
    ("vit_pe_lang_large_patch14_448", "timm"),
    ("vit_so400m_patch14_siglip_gap_384", "timm"),
    ("naflexvit_base_patch16_siglip", "timm"),
    ("naflexvit_base_patch16_siglip", "transformers"),
    ("vit_small_patch14_dinov2", "timm"),
    ("vit_small_patch14_dinov2", "transformers"),
    ("vit_small_patch14_dinov2", "transformers-5"),
    ("vit_small_patch14_dinov2", "transformers-base"),
    ("vit_small_patch14_reg4_dinov2", "timm"),
    ("dinov2_with_registers_small", "transformers"),
    ("vit_small_patch8_224.dino", "timm"),
    ("vit_base_patch16_224.mae", "transformers"),
    ("vit_base_patch32_clip_224", "timm"),
    ("vit_base_patch32_clip_224", "transformers"),
    ("vit_base_patch32_clip_224", "transformers-base"),
    ("vit_base_patch32_clip_quickgelu_224", "timm"),
    ("siglip_base_patch16_224", "transformers"),
    ("siglip_base_patch16_224", "transformers-base"),
    ("vit_base_patch16_siglip_224", "timm"),
)


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, hidden: int = 96) -> None:
    """Replaces a network of the registry by a tiny one of the same structure."""
    variants = family_of(name).variants
    shape = dataclasses.replace(variants[name].shape, **SIZES, hidden=hidden)
    monkeypatch.setitem(variants, name, dataclasses.replace(variants[name], shape=shape))


@pytest.mark.extended
@pytest.mark.parametrize(("name", "library"), CASES, ids=["-".join(case) for case in CASES])
def test_blocks_logits_and_parameters_match(name, library, monkeypatch):
    timm = pytest.importorskip("timm")
    if library != "timm":
        pytest.importorskip("transformers")

    def in_timm(name: str, size: int):
        sized = {} if "naflex" in name else {"img_size": size}
        return timm.create_model(name, **IN_TIMM, **sized, num_classes=CLASSES)

    shrink(monkeypatch, name, HIDDEN.get((name, library), 96))
    original = ORIGINALS[name, library]
    if library == "timm":
        monkeypatch.setitem(ORIGINALS, (name, library), dataclasses.replace(original, make=in_timm))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = parity.compare(name, library, size := 36 if "384" in name else 32, back=True)
    model = create_model(name, 2, image_size=size, abstract_backbone=True, abstract_head=True)
    wanted = {*model.backbone.block_names} | ({"logits"} if library == "timm" else set())
    assert wanted - {*errors} <= {"pre_logits", "norm"}  # These blocks are no module in some libraries.
    assert {block: error for block, error in errors.items() if not error <= parity.LIMIT} == {}


@pytest.mark.extended
def test_images_of_another_aspect_have_the_same_features(monkeypatch):
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    name, size = "naflexvit_base_patch16_siglip", 32
    shrink(monkeypatch, name)
    network = timm.create_model(name, **IN_TIMM, num_classes=CLASSES).eval()
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    pixels = np.random.default_rng(0).normal(size=(2, size, 3 * size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
    found = parity.loaded(name, "timm", state, size)(jnp.asarray(pixels))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "eva02_base_patch16_clip_224",
        *(
            pytest.param(name, marks=pytest.mark.extended)
            for name in ("dinov3_vits16", "beit_base_patch16_224", "vit_pe_core_base_patch16_224")
        ),
    ],
)
def test_logits_from_a_boundary_equal_those_from_images(name, monkeypatch):
    shrink(monkeypatch, name)
    model = create_model(name, 3, image_size=32)
    model.eval()
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    features = model.backbone(images, stop="blocks.0")
    np.testing.assert_array_equal(model(features, start="blocks.0"), model(images))
    assert features.shape[-1] == 32
