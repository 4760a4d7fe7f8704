import ml_dtypes
import numpy as np
import pytest

from transfer_jax.weights.not_finite import not_finite


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("values", [[np.nan], [np.inf, -np.inf], []])
def test_floats(dtype, values):
    array = np.ones(20).astype(dtype)
    array[3 : 3 + len(values)] = values
    assert not_finite(array.reshape(4, 5).T) == len(values)


@pytest.mark.parametrize("array", [np.arange(3), np.zeros(2, bool), np.zeros((0, 2), np.float32)])
def test_arrays_without_such_values(array):
    assert not_finite(array) == 0
