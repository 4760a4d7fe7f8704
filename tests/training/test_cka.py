import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.models import PRE_LOGITS, Backbone, Classifier, Head, Preprocessing
from transfer_jax.models.flat_arrays import split
from transfer_jax.nn.initializers import NumpyRngs
from transfer_jax.nn.layers import Conv, GlobalPool
from transfer_jax.training.cka import MOST_IMAGES, cka, dependence, make_plasticity, make_similarity
from transfer_jax.training.forward import Forward

RNG = np.random.default_rng(0)


def gram(features: np.ndarray) -> jax.Array:
    rows = features - features.mean(0)
    return jnp.asarray(rows @ rows.T, jnp.float32)


def similarity(x: np.ndarray, y: np.ndarray) -> float:
    k, l = gram(x), gram(y)  # noqa: E741
    return cka({"a": jnp.stack([dependence(k, l), dependence(k, k), dependence(l, l)])})["a"]


def test_the_estimate_by_enumeration():
    """Compares with the mean over all choices of four different images, the definition of the criterion."""
    k, l = (np.asarray(gram(RNG.normal(size=(6, 3)))) for _ in range(2))  # noqa: E741
    terms = [
        k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in itertools.permutations(range(6), 4)
    ]
    assert float(dependence(jnp.asarray(k), jnp.asarray(l))) == pytest.approx(np.mean(terms), rel=1e-4)


def test_rotated_and_scaled_activations_are_alike():
    x = RNG.normal(size=(32, 20)) * np.linspace(0.1, 3, 20)
    rotation, _ = np.linalg.qr(RNG.normal(size=(20, 20)))
    assert similarity(x, 7 * x @ rotation + 5) == pytest.approx(1, abs=1e-5)
    stretched = x @ np.diag(np.linspace(10, 0.1, 20))
    assert similarity(x, stretched) < 0.95


def test_unrelated_activations_are_not_alike():
    """With far more channels than images the biased estimate is near 1, and this one near 0."""
    found = [similarity(RNG.normal(size=(32, 4000)), RNG.normal(size=(32, 4000))) for _ in range(20)]
    assert abs(np.mean(found)) < 0.05
    k, l = (np.asarray(gram(RNG.normal(size=(32, 4000)))) for _ in range(2))  # noqa: E741
    assert np.vdot(k, l) / np.linalg.norm(k) / np.linalg.norm(l) > 0.9


def test_constant_activations_have_no_cka():
    assert cka({"dead": np.array([0.0, 0.0, 1.0]), "a": np.array([1.0, 4.0, 1.0])}) == {"a": 0.5}


@pytest.fixture(scope="module")
def network():
    conv = Conv(3, 6, 4, strides=4, padding="VALID", rngs=NumpyRngs(0))
    model = Classifier(Backbone({"stem": conv, PRE_LOGITS: GlobalPool()}, 6), Head(6, 2, rngs=NumpyRngs(0)))
    model.eval()
    graphdef, params, _ = split(model)
    preprocessing = Preprocessing(image_size=16, mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0))
    return Forward(graphdef=graphdef, start=None, preprocessing=preprocessing), params


def test_a_network_whose_channels_are_rotated(network):
    forward, arrays = network
    rotation, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    path = "backbone/stem/kernel"
    rotated = {**arrays, path: arrays[path] @ jnp.asarray(3 * rotation, jnp.float32)}
    other = {**arrays, path: jnp.asarray(RNG.normal(size=arrays[path].shape), jnp.float32)}
    images = {"image": RNG.integers(0, 256, (40, 16, 16, 3), np.uint8)}
    compared = jax.jit(make_similarity(forward, ("stem", PRE_LOGITS)))
    assert cka(compared(rotated, arrays, images)) == pytest.approx({"stem": 1, PRE_LOGITS: 1}, abs=1e-4)
    assert max(cka(compared(other, arrays, images)).values()) < 0.99
    few = {"image": images["image"][:MOST_IMAGES]}
    for terms, expected in zip(
        compared(other, arrays, images).values(), compared(other, arrays, few).values(), strict=True
    ):
        np.testing.assert_allclose(terms, expected, rtol=1e-5)
    plasticity = make_plasticity(forward, ("stem",))
    assert float(plasticity(rotated, arrays, images)["stem"]) == pytest.approx(0, abs=1e-4)


def test_terms_of_batches_add_up_to_one_estimate(network):
    forward, arrays = network
    path = "backbone/stem/kernel"
    other = {**arrays, path: arrays[path] + jnp.asarray(0.2 * RNG.normal(size=arrays[path].shape))}
    colours, noise = RNG.integers(0, 156, (320, 1, 1, 3)), RNG.integers(0, 100, (320, 16, 16, 3))
    images = (colours + noise).astype(np.uint8)
    compared = jax.jit(make_similarity(forward, ("stem",)))
    terms = [compared(other, arrays, {"image": part})["stem"] for part in images.reshape(-1, 8, 16, 16, 3)]
    large = [compared(other, arrays, {"image": part})["stem"] for part in images.reshape(-1, 32, 16, 16, 3)]
    small, whole = (cka({"stem": sum(each, np.zeros(3))})["stem"] for each in (terms, large))
    assert small == pytest.approx(whole, abs=0.02)
