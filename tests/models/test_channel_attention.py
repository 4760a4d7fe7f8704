import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.models.channel_attention import EfficientAttention, channel_attention, squeezed_channels
from transfer_jax.nn.initializers import NumpyRngs


def test_eca_convolves_the_means_along_the_channels():
    attention = EfficientAttention(4, NumpyRngs(0))
    attention.taps[...] = jnp.array([1.0, 0.0, -2.0])
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    means = np.pad(x.mean((1, 2)), ((0, 0), (1, 1)))
    gate = 1 / (1 + np.exp(-(means[:, :4] - 2 * means[:, 2:])))
    np.testing.assert_allclose(attention(jnp.asarray(x)), x * gate[:, None, None], rtol=1e-5)


@pytest.mark.parametrize(("features", "size"), [(4, 3), (256, 5), (1024, 5), (2048, 7)])
def test_eca_has_more_taps_for_more_channels(features, size):
    assert EfficientAttention(features, NumpyRngs(0)).taps.shape == (size,)


@pytest.mark.parametrize(
    ("features", "squeeze", "squeezed"), [(256, 1 / 16, 16), (64, 1 / 16, 8), (76, 0.25, 16)]
)
def test_squeezed_channels_are_a_multiple_of_8(features, squeeze, squeezed):
    assert squeezed_channels(features, squeeze) == squeezed


def test_an_unknown_kind_names_the_kinds():
    with pytest.raises(ValueError, match=r"must be one of \('', 'se', 'eca'\), got 'cbam'"):
        channel_attention("cbam", 8, 0.25, NumpyRngs(0))
