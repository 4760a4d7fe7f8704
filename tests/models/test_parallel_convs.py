import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax.models.parallel_convs import ParallelConvs
from transfer_jax.nn.initializers import NumpyRngs


def randomized(**options) -> ParallelConvs:
    """Returns convolutions whose normalizations are not the identity."""
    convs, rng = ParallelConvs(8, 8, rngs=NumpyRngs(0), **options), np.random.default_rng(0)
    for _, norm in nnx.iter_graph(convs):
        if isinstance(norm, nnx.BatchNorm):
            for array in (norm.mean, norm.var, norm.scale, norm.bias):
                assert array is not None
                array[...] = jnp.asarray(rng.uniform(0.5, 2.0, 8), jnp.float32)
    convs.eval()
    return convs


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": (3, 1), "identity": True},
        {"sizes": (5, 3), "strides": 2, "groups": 8},
        {"sizes": (3,), "groups": 2, "identity": True},
        {"sizes": (), "identity": True},
    ],
    ids=["identity", "strided", "single", "norm"],
)
def test_one_convolution_equals_the_sum(options):
    convs = randomized(**options)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 7, 7, 8)), jnp.float32)
    parts = [getattr(convs, f"conv{index}")(x) for index in range(len(options["sizes"]))]
    parts += [convs.norm(x)] if convs.norm is not None else []
    np.testing.assert_allclose(convs(x), sum(parts), rtol=1e-4, atol=1e-5)


def test_training_normalizes_each_convolution_by_the_batch():
    convs = randomized(sizes=(3, 1))
    convs.train()
    norm = dict(nnx.iter_children(convs))["conv1"].norm
    before = np.asarray(norm.mean[...])
    convs(jnp.ones((2, 5, 5, 8)))
    assert not np.array_equal(norm.mean[...], before)
