import jax
import numpy as np
import pytest

from transfer_jax.nn.initializers import NumpyRngs, ShapeRngs, constant, fan_in, fan_out, normal, zeros


@pytest.mark.parametrize(
    ("initializer", "shape", "deviation", "largest"),
    [
        (fan_in, (400, 300), 400**-0.5, 2 / 0.8796),
        (fan_out, (3, 3, 60, 200), (2 / (9 * 200)) ** 0.5, 2 / 0.8796),
        (normal(0.02), (400, 300), 0.02, 6.0),
    ],
)
def test_draws_have_their_deviation(initializer, shape, deviation, largest):
    found = np.asarray(initializer(NumpyRngs(0).params(), shape))
    assert found.dtype == np.float32
    assert found.shape == shape
    assert found.std() == pytest.approx(deviation, rel=0.01)
    assert abs(found.mean()) < 0.02 * deviation
    assert np.abs(found).max() <= largest * deviation * 1.001
    assert np.abs(found).max() > 1.9 * deviation


def test_draws_follow_their_seed():
    draw = [
        np.asarray(fan_in(NumpyRngs(*seed).params(), (5, 4))) for seed in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert not np.isclose(draw[0], draw[2]).any()
    assert not np.isclose(draw[0], draw[3]).any()
    source = NumpyRngs(0)
    assert not np.isclose(fan_in(source.params(), (5, 4)), fan_in(source.params(), (5, 4))).any()


def test_constants():
    np.testing.assert_array_equal(constant(0.5)(NumpyRngs(0).params(), (3,)), [0.5, 0.5, 0.5])


@pytest.mark.parametrize("initializer", [fan_in, fan_out, zeros, normal(1.0)])
def test_shapes_only(initializer):
    assert initializer(ShapeRngs().params(), (3, 4)) == jax.ShapeDtypeStruct((3, 4), np.float32)
