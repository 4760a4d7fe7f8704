import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.features.row_format import (
    DTYPES,
    RowFormat,
    decode,
    relative_error,
    squared_error,
)

SHAPES = [(6,), (4, 6), (3, 4, 6)]


def features(shape: tuple[int, ...]) -> np.ndarray:
    """Returns five rows whose channels have very different magnitudes, one of them zero."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(5, *shape)).astype(np.float32) * np.array([0, 1e-3, 1, 10, 100, 1e3], np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sizes_and_shapes_of_encoded_rows(shape, dtype):
    row_format = RowFormat.single(shape, dtype)
    rows = row_format.encode({"features": features(shape)})
    assert rows.nbytes == 5 * row_format.row_bytes
    columns, shapes = row_format.columns(rows), row_format.column_shapes(5)
    assert {name: (x.shape, x.dtype) for name, x in columns.items()} == {
        name: (x.shape, x.dtype) for name, x in shapes.items()
    }
    assert columns["features"].shape == (5, *shape)
    assert columns["features"].dtype == dtype


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_error_is_at_most_half_a_step(shape):
    exact, row_format = features(shape), RowFormat.single(shape, "int8")
    columns = row_format.columns(row_format.encode({"features": exact}))
    axes = tuple(range(1, exact.ndim - 1)) or (1,)
    step = np.abs(exact).max(axis=axes, keepdims=True) / 127
    assert np.all(np.abs(decode(**columns) - exact) <= step * 0.5001)
    on_device = decode(**{name: jnp.asarray(column) for name, column in columns.items()})
    assert on_device.dtype == np.float32
    np.testing.assert_array_equal(on_device, decode(**columns))


def test_int8_values_by_hand():
    exact = np.array([[[127.0, 2.0], [-63.6, -4.0]]], np.float32)
    row_format = RowFormat.single((2, 2), "int8")
    columns = row_format.columns(row_format.encode({"features": exact}))
    np.testing.assert_allclose(columns["scale"], [[1.0, 4 / 127]])
    np.testing.assert_array_equal(columns["features"], [[[127, 64], [-64, -127]]])


def test_relative_error_by_hand():
    sums = [
        squared_error(np.array([3.0, 0]), np.array([3.0, 1])),
        squared_error(np.array([4.0]), np.array([2.0])),
    ]
    assert sums == [(1.0, 9.0), (4.0, 16.0)]
    assert relative_error(sums) == pytest.approx(np.sqrt(5 / 25))
    assert relative_error([]) == 0.0
