import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing.lora import LoraUpdates
from transfer_jax.freezing.selectors import SelectorError, parse

KERNELS = {
    "backbone/blocks.0/attn/qkv/kernel": (4, 12),
    "backbone/blocks.0/conv/kernel": (3, 3, 4, 6),
    "backbone/blocks.0/conv/bias": (6,),
}


def arrays(rng=None):
    rng = rng or np.random.default_rng(0)
    return {path: jnp.asarray(rng.normal(size=shape), jnp.float32) for path, shape in KERNELS.items()}


def of(text: str, rank: int = 2, alpha: float = 3.0) -> LoraUpdates:
    return LoraUpdates.of(parse(text), tuple(KERNELS), rank, alpha)


def test_initial_updates_are_zero():
    given = arrays()
    for text in ("role('kernel')", "match('qkv')", "all_()"):
        updates = of(text)
        found = updates.merged({**given, **updates.initial(given, 0)})
        assert found.keys() == given.keys()
        for path, array in given.items():
            np.testing.assert_array_equal(found[path], array)


def test_update_of_a_convolution_by_hand():
    given, updates = arrays(), of("match('conv')")
    path = "backbone/blocks.0/conv/kernel"
    factors = updates.initial(given, 0)
    a, b = f"{path}/lora_a", f"{path}/lora_b"
    assert {name: factor.shape for name, factor in factors.items()} == {a: (36, 2), b: (2, 6)}
    assert updates.paths == (a, b)
    assert float(jnp.abs(factors[a]).max()) <= 1 / 6
    factors[b] = jnp.ones((2, 6))
    merged = updates.merged({**given, **factors})
    update = 1.5 * np.asarray(factors[a]).sum(1).reshape(3, 3, 4, 1)
    np.testing.assert_allclose(merged[path], given[path] + update, rtol=1e-5, atol=1e-6)


def test_qkv_adapts_query_and_value():
    given, updates = arrays(), of("match('qkv')")
    path = "backbone/blocks.0/attn/qkv/kernel"
    factors = {name: jnp.ones_like(factor) for name, factor in updates.initial(given, 0).items()}
    assert {factor.shape for factor in factors.values()} == {(4, 2), (2, 4)}
    assert len(factors) == 4
    update = np.asarray(updates.merged({**given, **factors})[path] - given[path])
    np.testing.assert_allclose(update[:, :4], 3.0, rtol=1e-5)
    np.testing.assert_allclose(update[:, 4:8], 0.0)
    np.testing.assert_allclose(update[:, 8:], 3.0, rtol=1e-5)


def test_selector_without_kernels_raises():
    with pytest.raises(SelectorError, match=r"lora=role\('bias'\) selects no kernel, only .*conv/bias"):
        of("role('bias')")
