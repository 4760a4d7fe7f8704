import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.tasks import SingleLabel
from transfer_jax.training.evaluation import predict


@pytest.mark.parametrize("kind", ["image", "features"])
def test_predictions_leave_the_filling_out(kind):
    rows = np.arange(10.0)
    batches = [
        {kind: np.minimum(np.arange(i, i + 4), 9), "mask": np.arange(i, i + 4) < 10, "label": None}
        for i in (0, 4, 8)
    ]

    def step(arrays, inputs):
        assert set(inputs) == {kind}
        return jnp.stack([inputs[kind], jnp.zeros(4)], -1) * arrays["scale"]

    found = predict(step, {"scale": jnp.float32(0.1)}, batches, SingleLabel(("a", "b")))
    assert found.shape == (10, 2)
    np.testing.assert_allclose(found[:, 0], 1 / (1 + np.exp(-rows / 10)), rtol=1e-5)
