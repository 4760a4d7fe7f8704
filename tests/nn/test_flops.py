import jax
import jax.numpy as jnp
import pytest

from transfer_jax.commands.models import _cost
from transfer_jax.nn.flops import jaxpr_equations, jaxpr_operand_bytes, multiply_adds


@pytest.mark.parametrize(
    ("model", "published"),  # 10^9 multiply-adds, as torchvision publishes them
    [
        ("resnet18", 1.814),
        ("mobilenet_v2", 0.301),
        ("resnext50_32x4d", 4.230),
        ("vit_base_patch32_224", 4.409),
    ],
)
def test_networks_have_the_published_cost(model, published):
    assert _cost(model, 224)[1] / 1e9 == pytest.approx(published, abs=6e-4)


def test_loops_count_as_often_as_they_run():
    matrix = jax.ShapeDtypeStruct((4, 5, 5), jnp.float32)

    def product(x):
        return jax.lax.map(lambda square: square @ square, x)

    assert multiply_adds(product, matrix) == 4 * 5**3
    assert multiply_adds(jax.vmap(lambda square: square @ square), matrix) == 4 * 5**3


def test_the_most_expensive_branch_counts():
    x = jax.ShapeDtypeStruct((5, 5), jnp.float32)

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert multiply_adds(either, x) == 2 * 5**3
    assert multiply_adds(lambda x: x + x, x) == 0


def test_operands_and_results_count_as_often_as_they_are_used():
    square = jax.ShapeDtypeStruct((5, 5), jnp.float32)

    def power(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: y @ x, x) + x.astype(jnp.bfloat16) @ x.astype(
            jnp.bfloat16
        )

    jaxpr = jax.make_jaxpr(power)(square).jaxpr
    assert jaxpr_operand_bytes(jaxpr) == 3 * 3 * 25 * 4 + 3 * 25 * 2
    assert jaxpr_equations(jax.make_jaxpr(lambda x: x @ x + x)(square).jaxpr) == 2
