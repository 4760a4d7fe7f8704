import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.nn.antialiasing import AntialiasedConvNorm, halve
from transfer_jax.nn.initializers import NumpyRngs

IMAGE = np.array([[0.0, 4.0, 8.0, 4.0], [4.0, 8.0, 0.0, 4.0]])[None, :, :, None]


def test_average_is_the_mean_of_2x2_pixels():
    np.testing.assert_allclose(halve(jnp.asarray(IMAGE), "average")[0, :, :, 0], [[4.0, 4.0]])


def test_average_ceil_is_over_the_pixels_inside_the_image():
    found = halve(jnp.asarray(IMAGE[:, :, :3]), "average_ceil")
    np.testing.assert_allclose(found[0, :, :, 0], [[4.0, 4.0]])


def test_blur_is_binomial_with_zeros_around():
    # Rows weigh (1/2, 1/4), columns (0, 1/2, 1/4) and (1/4, 1/2, 1/4).
    wanted = [[(0 * 2 + 4 * 1) / 8 + (4 * 2 + 8 * 1) / 16, (4 + 16 + 4) / 8 + (8 + 0 + 4) / 16]]
    np.testing.assert_allclose(halve(jnp.asarray(IMAGE), "blur")[0, :, :, 0], wanted)


@pytest.mark.parametrize(("name", "side"), [("average", 2), ("average_ceil", 3), ("blur", 3)])
def test_odd_images(name, side):
    assert halve(jnp.ones((1, 5, 5, 2)), name).shape == (1, side, side, 2)


def test_an_unknown_filter_names_the_filters():
    with pytest.raises(ValueError, match="must be one of average, average_ceil, blur, got 'median'"):
        halve(jnp.asarray(IMAGE), "median")


def test_a_convolution_is_filtered_after_its_activation():
    conv = AntialiasedConvNorm(1, 1, 1, filter_name="average", activation=jnp.abs, rngs=NumpyRngs(0))
    conv.eval()
    conv.conv.kernel[...] = -jnp.ones((1, 1, 1, 1))
    found = conv(jnp.asarray(IMAGE, jnp.float32))
    np.testing.assert_allclose(found[0, :, :, 0], [[4.0, 4.0]], rtol=1e-4)
