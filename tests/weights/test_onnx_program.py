import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from transfer_jax.nn.conv import conv2d

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from transfer_jax.weights import onnx_program as program  # noqa: E402

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32)


def run(content: bytes, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixels": x})
    assert isinstance(found, np.ndarray)
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_any_batch_of_a_small_network(batch):
    def network(x):
        x = jax.nn.relu6(conv2d(x, jnp.asarray(KERNEL)))
        x = conv2d(x, jnp.asarray(KERNEL[:, :, :1]), groups=4, strides=2)
        return conv2d(x, jnp.asarray(KERNEL[:1, :1])).mean(axis=(1, 2))

    x = np.random.default_rng(1).normal(size=(batch, 8, 8, 4)).astype(np.float32)
    content = program.onnx_program(network, (8, 8, 4))
    np.testing.assert_allclose(run(content, x), network(x), rtol=1e-5, atol=1e-5)
    operators = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert operators.count("Conv") == 3  # XLA's own, none of those written out for a CPU


def test_values_that_do_not_depend_on_pixels_are_computed_at_export():
    def network(x):
        unused = jnp.exp(x)
        del unused
        return x * (jnp.sqrt(jnp.arange(4.0)) + 1).reshape(1, 4)

    graph = onnx.load_from_string(program.onnx_program(network, (4,))).graph
    assert [node.op_type for node in graph.node] == ["Mul", "Identity"]
    (constant,) = graph.initializer
    np.testing.assert_allclose(
        onnx.numpy_helper.to_array(constant), [[1, 2, 1 + 2**0.5, 1 + 3**0.5]], rtol=1e-6
    )


def test_a_primitive_without_an_operator_is_named():
    with pytest.raises(ValueError, match=r"does not support the JAX primitive sin; supported are abs,"):
        program.onnx_program(jnp.sin, (4,))


def test_more_parameters_than_a_file_holds(monkeypatch):
    monkeypatch.setattr(program, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"0\.0 GB of parameters, but"):
        program.onnx_program(lambda x: x + np.ones(300, np.float32), (300,))


def test_a_dimension_that_is_no_multiple_of_the_batch():
    def network(x):
        return jnp.concatenate([x, jnp.zeros((x.shape[0] + 1, 4))])

    with pytest.raises(ValueError, match="the symbolic dimension b \\+ 1 is not a multiple of the batch b"):
        program.onnx_program(network, (4,))


def test_platform_dependent_branches_take_the_default():
    def network(x):
        return lax.platform_dependent(x, cpu=lambda x: x + 1, default=lambda x: x + 2)

    assert run(program.onnx_program(network, (4,)), np.zeros((2, 4), np.float32)).tolist() == [[2] * 4] * 2
