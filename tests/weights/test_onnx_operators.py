import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from transfer_jax.weights.onnx_operators import OPERATORS  # noqa: E402
from transfer_jax.weights.onnx_program import onnx_program  # noqa: E402

SHAPE = (6, 7, 4)
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


KERNEL, WEIGHTS = normal(3, 2, 2, 6), normal(5, 7)


def windows(reducer, start, around):
    return lambda x: lax.reduce_window(x, start, reducer, (1, 3, 2, 1), (1, 2, 1, 1), around)


AROUND = ((0, 0), (1, 2), (0, 1), (0, 0))
CASES = {
    "add": lambda x: x + x[:, :1],
    "sub": lambda x: 1 - x,
    "mul": lambda x: x * x.sum(axis=(1, 2), keepdims=True),
    "div": lambda x: x / 3,
    "max": lambda x: jnp.maximum(x, 0.2),
    "min": lambda x: jnp.minimum(x, 0.2),
    "pow": lambda x: jnp.abs(x) ** 1.5,
    "exp": jnp.exp,
    "log": lambda x: jnp.log(jnp.abs(x) + 1),
    "tanh": jnp.tanh,
    "erf": jax.scipy.special.erf,
    "erfc": jax.scipy.special.erfc,
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "rsqrt": lambda x: lax.rsqrt(jnp.abs(x) + 1),
    "neg": jnp.negative,
    "abs": jnp.abs,
    "logistic": jax.nn.sigmoid,
    "square": jnp.square,
    "integer_pow": lambda x: x**3,
    "clamp": lambda x: lax.clamp(-0.5, x, jnp.full(x.shape, 0.25)),
    "gt": lambda x: jnp.where(x > 0, x, -2 * x),
    "ge": lambda x: jnp.where(x >= 0, x, 0.5),
    "lt": lambda x: jnp.where(x < 0, x, 0.5),
    "le": lambda x: jnp.where(x <= 0, x, 0.5),
    "select_n": lambda x: lax.select_n(x > 0, x, x + 3),
    "convert_element_type": lambda x: (10 * x).astype(jnp.int32).astype(jnp.float32),
    "reduce_sum": lambda x: x.sum(axis=(1, 3)),
    "reduce_max": lambda x: x.max(axis=-1),
    "reduce_min": lambda x: x.min(axis=1),
    "copy": lambda x: jnp.array(x, copy=True) + 1,
    "stop_gradient": lambda x: lax.stop_gradient(x) + 1,
    "reshape": lambda x: x.reshape(-1, 4),
    "squeeze": lambda x: x[:, :1].squeeze(1),
    "expand_dims": lambda x: jnp.expand_dims(x, (1, 4)),
    "broadcast_in_dim": lambda x: x + jnp.broadcast_to(x[:, :1, None], (x.shape[0], 6, 2, 7, 4)).sum(axis=2),
    "transpose": lambda x: x.transpose(0, 2, 3, 1),
    "concatenate": lambda x: jnp.concatenate([jnp.zeros((x.shape[0], 1, 7, 4)), x], axis=1),
    "tile": lambda x: jnp.tile(np.arange(4.0, dtype=np.float32)[None, None, None], (x.shape[0], 1, 1, 1)) + x,
    "rev": lambda x: jnp.flip(x, (1, 3)),
    "slice": lambda x: lax.slice(x, (0, 1, 0, 0), (x.shape[0], 6, 7, 4), (1, 2, 3, 1)),
    "gather": lambda x: x[:, 2],
    "gather of several": lambda x: x[:, ::-2] + x[:, np.array([3, 0, 3])],
    "pad": lambda x: lax.pad(x, 1.5, ((0, 0, 0), (2, 0, 0), (-1, 1, 0), (0, 0, 0))),
    "conv_general_dilated": lambda x: lax.conv_general_dilated(
        *(x, jnp.asarray(KERNEL), (2, 1), ((1, 0), (0, 2))),
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    ),
    "dot_general": lambda x: jnp.einsum("nhwc,iw->nhci", x, WEIGHTS),
    "dot_general of batches": lambda x: jnp.einsum("nhwc,nhvc->nhwv", x, x),
    "dot_general over two axes": lambda x: jnp.einsum("nhwc,nvwc->nhv", x, x),
    "reduce_window_max": windows(lax.max, -jnp.inf, AROUND),
    "reduce_window_sum": windows(lax.add, 0.0, AROUND),
}


@pytest.mark.parametrize("case", CASES)
def test_a_program_computes_what_the_function_does(case):
    function = CASES[case]
    content = onnx_program(function, SHAPE)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = normal(batch, *SHAPE)
        expected = np.asarray(jax.jit(function)(x))
        (found,) = session.run(None, {"pixels": x})
        assert isinstance(found, np.ndarray)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_long_sums_keep_their_digits():
    x = RNG.uniform(size=(1, 128, 128, 32)).astype(np.float32)
    content = onnx_program(lambda x: x.sum(axis=(1, 2)), x.shape[1:])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixels": x})
    np.testing.assert_allclose(np.asarray(found), x.sum(axis=(1, 2), dtype=np.float64), rtol=1e-6)


def test_every_operator_has_its_case():
    assert {case.split()[0] for case in CASES} == {*OPERATORS}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))),
            "does not support padding between elements",
        ),
        (
            lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 2), (1, 1, 1, 1), "VALID"),
            "windows over",
        ),
        (lambda x: x[:, np.array([0, 2]), np.array([0, 2])], "constant indices along one axis"),
        (
            lambda x: lax.conv_general_dilated(
                *(x, jnp.asarray(KERNEL[..., :4]), (1, 1), ((0, 0), (0, 0)), (2, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=2,
            ),
            "convolutions without batch groups",
        ),
    ],
)
def test_unsupported_primitives_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        onnx_program(function, SHAPE)
