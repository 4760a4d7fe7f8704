import warnings

import numpy as np
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.family import Resampling
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of
from transfer_jax.weights.loading import load_arrays
from transfer_jax.weights.resize_params import resize_param
from transfer_jax.weights.specs import WeightsSpec

POSITIONS, KERNEL = "backbone/embed/pos_embed", "backbone/stem/conv/kernel"
TABLE = "attn/relative_position_bias_table"


@pytest.mark.extended
@pytest.mark.parametrize("tokens", [0, 1])
@pytest.mark.parametrize(("old", "new"), [(14, 11), (7, 16), (37, 16)])
def test_positions_are_resampled_as_timm_does(tokens, old, new):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="torch is not installed")
        layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    array = np.random.default_rng(0).normal(size=(1, tokens + old * old, 6)).astype(np.float32)
    expected = layers.resample_abs_pos_embed(
        torch.from_numpy(array), new_size=[new, new], num_prefix_tokens=tokens
    )
    found = resize_param(POSITIONS, array, (1, tokens + new * new, 6))
    assert found is not None
    assert found[1] == f"{POSITIONS} resampled from {old}x{old} to {new}x{new}"
    np.testing.assert_allclose(found[0], expected.numpy(), atol=2e-5)
    np.testing.assert_array_equal(found[0][:, :tokens], array[:, :tokens])


@pytest.mark.extended
@pytest.mark.parametrize("excess", [0.0, 0.1])
@pytest.mark.parametrize(("old", "new"), [(37, 16), (37, 40), (13, 23)])
def test_positions_are_resampled_from_the_nearest_as_pytorch_does(old, new, excess):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    array = np.random.default_rng(0).normal(size=(1, 1 + old * old, 6)).astype(np.float32)
    grid = torch.from_numpy(array[:, 1:]).reshape(1, old, old, 6).permute(0, 3, 1, 2)
    options = {"scale_factor": (new + excess) / old} if excess else {"size": (new, new)}
    expected = torch.nn.functional.interpolate(grid, mode="bicubic", **options)
    assert expected.shape[2] == new
    expected = expected.permute(0, 2, 3, 1).reshape(new * new, 6).numpy()
    how = Resampling(antialias=False, offset=excess)
    found = resize_param(POSITIONS, array, (1, 1 + new * new, 6), how)
    assert found is not None
    np.testing.assert_allclose(found[0][0, 1:], expected, atol=2e-5)
    found = resize_param(f"backbone/layers.0.blocks.0/{TABLE}", array[0, 1:], (new * new, 6), how)
    assert found is not None
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_biases_of_a_class_token_are_kept():
    array = np.random.default_rng(0).normal(size=(5 * 5 + 3, 2)).astype(np.float32)
    found = resize_param(f"backbone/blocks.0/{TABLE}", array, (7 * 7 + 3, 2))
    patches = resize_param(f"backbone/blocks.0/{TABLE}", array[:-3], (7 * 7, 2))
    assert found is not None
    assert patches is not None
    np.testing.assert_array_equal(found[0], np.concatenate([patches[0], array[-3:]]))
    assert found[1] == patches[1] == f"backbone/blocks.0/{TABLE} resampled from 5x5 to 7x7"


def test_dinov2_and_swin_are_resampled_as_their_authors_do():
    names = ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "swin_base_patch4_window12_384")
    assert [variant_of(name).resampling for name in names] == [
        Resampling(antialias=False, offset=0.1),
        Resampling(),
        Resampling(antialias=False),
    ]


def test_tables_by_head_are_resampled_as_those_by_position():
    path = "backbone/attn/relative_position_bias_table"
    table = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    by_position = resize_param(path, table, (25, 2))
    found = resize_param(path, table.T.reshape(2, 3, 3), (2, 5, 5))
    assert by_position is not None
    assert found is not None
    expected, text = by_position
    assert found[1] == text == f"{path} resampled from 3x3 to 5x5"
    np.testing.assert_array_equal(found[0].reshape(2, -1).T, expected)


def test_a_swin_takes_weights_of_other_windows():
    name = "swin_tiny_patch4_window7_224"
    _, params, stats = split(create_model(name, 3, abstract_backbone=True))
    shapes = {path: array.shape for path, array in {**params, **stats}.items()}
    rng = np.random.default_rng(0)
    source = {
        path: rng.normal(size=(23**2, shape[1]) if path.endswith(TABLE) else shape).astype(np.float32)
        for path, shape in shapes.items()
    }
    model = create_model(name, 3, abstract_backbone=True)
    variant = variant_of(name)
    spec = WeightsSpec(name=name, model=name, address="x", preprocessing=variant.preprocessing)
    report = load_arrays(model, source, spec)
    assert len(report.adapted) == 12
    path = f"backbone/layers.0.blocks.0/{TABLE}"
    expected = resize_param(path, source[path], shapes[path], variant.resampling)
    assert expected is not None
    np.testing.assert_array_equal(split(model)[1][path], expected[0])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_gray_images_give_what_they_gave_in_colour(channels):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    found = resize_param(KERNEL, kernel, (3, 3, channels, 8))
    assert found is not None
    assert found[0].shape == (3, 3, channels, 8)
    if channels == 1:
        np.testing.assert_allclose(found[0].sum(axis=2), kernel.sum(axis=2), rtol=1e-6)
    else:
        np.testing.assert_array_equal(found[0][:, :, 0], kernel[:, :, 0] * np.float32(3 / channels))
    assert found[1].startswith(f"{KERNEL} ")


@pytest.mark.parametrize(
    ("path", "have", "want"),
    [
        (KERNEL, (3, 3, 3, 8), (3, 3, 1, 9)),  # another width
        (KERNEL, (3, 3, 4, 8), (3, 3, 1, 8)),  # not of colour images
        (POSITIONS, (1, 197, 6), (1, 122, 8)),
        (POSITIONS, (1, 200, 6), (1, 122, 6)),  # no square
        (f"backbone/layers.0.blocks.0/{TABLE}", (169, 6), (529, 3)),  # other heads
        ("head/classifier/kernel", (8, 5), (8, 3)),
    ],
)
def test_anything_else_is_not_adapted(path, have, want):
    assert resize_param(path, np.zeros(have, np.float32), want) is None
