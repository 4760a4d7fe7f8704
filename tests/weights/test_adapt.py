import warnings

import numpy as np
import pytest

from transfer_jax.weights.adapt import adapt

POSITIONS, KERNEL = "backbone/embed/pos_embed", "backbone/stem/conv/kernel"


@pytest.mark.parametrize("tokens", [0, 1])
@pytest.mark.parametrize(("old", "new"), [(14, 11), (7, 16), (37, 16)])
def test_positions_are_resampled_as_timm_does(tokens, old, new):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        layers = pytest.importorskip("timm.layers")
    array = np.random.default_rng(0).normal(size=(1, tokens + old * old, 6)).astype(np.float32)
    expected = layers.resample_abs_pos_embed(
        torch.from_numpy(array), new_size=[new, new], num_prefix_tokens=tokens
    )
    found = adapt(POSITIONS, array, (1, tokens + new * new, 6))
    assert found is not None
    assert found[1] == f"{POSITIONS} resampled from {old}x{old} to {new}x{new}"
    np.testing.assert_allclose(found[0], expected.numpy(), atol=2e-5)
    np.testing.assert_array_equal(found[0][:, :tokens], array[:, :tokens])


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_gray_images_give_what_they_gave_in_colour(channels):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    found = adapt(KERNEL, kernel, (3, 3, channels, 8))
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
        ("head/classifier/kernel", (8, 5), (8, 3)),
    ],
)
def test_anything_else_is_not_adapted(path, have, want):
    assert adapt(path, np.zeros(have, np.float32), want) is None
