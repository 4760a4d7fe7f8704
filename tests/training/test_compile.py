from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.training.compile import compile_function


def test_a_matrix_product_by_hand():
    a, b = jnp.ones((8, 16)), jnp.ones((16, 32))
    compiled = compile_function(lambda a, b: a @ b, a, jax.ShapeDtypeStruct(b.shape, b.dtype))
    np.testing.assert_array_equal(compiled(a, b), np.full((8, 32), 16))
    assert compiled.flops == pytest.approx(2 * 8 * 16 * 32, rel=0.01)
    assert compiled.seconds > 0


def test_the_memory_of_donated_arguments_is_reused():
    a, b = jnp.ones(1000), jnp.ones(1000)
    compiled = compile_function(lambda a, b: a + b, a, b, donate=(0,))
    np.testing.assert_array_equal(compiled(a, b), np.full(1000, 2))
    assert a.is_deleted()
    assert not b.is_deleted()


def test_other_shapes_are_refused():
    compiled = compile_function(lambda a: a + 1, jnp.ones(3))
    with pytest.raises(TypeError, match="compiled"):
        compiled(jnp.ones(4))


def test_xla_options_apply_to_one_program(compilations):
    a = np.linspace(0, 1, 8, dtype=np.float32)  # not compiled
    plain, other = (
        compile_function(jnp.exp, a, options=options)
        for options in ((), ("xla_backend_optimization_level=1", "xla_cpu_enable_fast_math=true"))
    )
    assert len(compilations) == 2
    np.testing.assert_allclose(other(a), plain(a), rtol=1e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("xla_nonsense=1", "No such compile option: 'xla_nonsense'"),
        ("xla_backend_optimization_level=much", "'much' is not a valid int32 value"),
    ],
)
def test_unsupported_xla_options_are_named(option, message):
    with pytest.raises(ValueError, match=rf"compiler_options=\('{option}',\): .*{message}"):
        compile_function(lambda a: a + 1, jnp.ones(3), options=(option,))


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Returns a list that receives each program that XLA compiles from now on."""
    found: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def test_the_same_program_is_compiled_once(compilations):
    def scaled(factor: float):
        return lambda tree: {"out": tree["a"] * factor}

    tree = {"a": np.ones(7, np.float32), "b": np.ones(7, np.float32)}
    first, again = (compile_function(scaled(3.0), tree) for _ in range(2))
    assert len(compilations) == 1
    other = compile_function(scaled(5.0), tree)
    assert len(compilations) == 2
    assert first.run is again.run
    for compiled, value in ((first, 3), (again, 3), (other, 5)):
        np.testing.assert_array_equal(compiled(tree)["out"], value)


def test_programs_of_different_arguments_are_kept_apart():
    tree = {"a": jnp.ones(7), "b": jnp.full(7, 2.0)}
    for name, value in (("a", 1), ("b", 2)):  # Their programs differ only in this name.
        np.testing.assert_array_equal(compile_function(lambda tree, name=name: tree[name], tree)(tree), value)
    for name in ("x", "y"):
        assert set(compile_function(lambda tree, name=name: {name: tree["a"]}, tree)(tree)) == {name}
