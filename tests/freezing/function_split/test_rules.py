"""The rules that keep the examples of a batch apart, audited by running each program."""

import functools

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing.function_split.compute_rules import ELEMENTWISE
from transfer_jax.freezing.function_split.examples import Mixed, PerExample, Shared
from transfer_jax.freezing.function_split.jaxprs import as_function, is_literal
from transfer_jax.freezing.function_split.layouts import examples_first
from transfer_jax.freezing.function_split.rules import RULES
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram

EXAMPLES = 4


def analysed(function, x, w):
    """The program of `function(x, w)` with examples on axis 0 of `x`, and what mixes them."""
    signature = Signature(
        lambda p, s, b, k: function(b["x"], p["w"]), {"w": w}, frozenset(), None, {"x": x}, None
    )
    program = SizedProgram(signature, len(x))
    return program, program.mark(SizedProgram(signature, 2 * len(x)))


def audit(program, x, w):
    """Checks that each row of a variable depends on its example alone, and on its number not at all."""
    order = np.random.default_rng(0).permutation(EXAMPLES)
    other = jax.random.permutation(jax.random.key(7), x.ravel()).reshape(x.shape)
    mixed_with = other.at[1].set(x[1])
    variables = [each for equation in program.equations for each in equation.outvars]
    given = {program.inputs["batch"]["x"]: x, program.inputs["params"]["w"]: w, **program.program.constants}
    run = jax.jit(as_function([*given], variables, program.equations))
    original, replaced, permuted = (
        dict(zip(variables, run(each, *[*given.values()][1:]), strict=True))
        for each in (x, mixed_with, x[order])
    )
    checked = 0
    for variable, place in program.places.items():
        if isinstance(place, PerExample) and variable in original and variable not in program.program.causes:
            rows = functools.partial(examples_first, layout=place, examples=EXAMPLES)
            np.testing.assert_array_equal(rows(original[variable])[1], rows(replaced[variable])[1])
            np.testing.assert_array_equal(rows(original[variable])[order], rows(permuted[variable]))
            checked += 1
    return checked


def place_of_result(program):
    (result,) = program.program.outputs
    if is_literal(result):
        return Shared()
    return Mixed("") if result in program.program.causes else program.places[result]


def tokens(x):
    return jnp.clip(jnp.abs(4 * x).astype(int), 0, 7)


def attention(x, **options):
    return jax.nn.dot_product_attention(*[x.reshape(len(x), 6, 2, 4)] * 3, **options)


@jax.custom_vjp
def scaled(x):
    return jnp.tanh(x)


scaled.defvjp(lambda x: (jnp.tanh(x), x), lambda x, gradient: (gradient * x,))


X = jax.random.normal(jax.random.key(0), (EXAMPLES, 6, 8))
W = jax.random.normal(jax.random.key(1), (8, 8))
APART = {
    "elementwise": lambda x, w: jnp.tanh(x) * 2 + w[:6],
    "scalar of the parameters": lambda x, w: x * w.mean(),
    "select": lambda x, w: jnp.where(x > 0, x, -x),
    "clamp": lambda x, w: jnp.clip(x, -1, 1),
    "transpose": lambda x, w: x.transpose(2, 0, 1).sum(0),
    "product": lambda x, w: x @ w,
    "product from the left": lambda x, w: jnp.einsum("ij,bkj->ikb", w, x),
    "attention": lambda x, w: jax.nn.softmax(x @ x.transpose(0, 2, 1)) @ x,
    "mean over positions": lambda x, w: x.mean(1),
    "argmax": lambda x, w: x.argmax(-1),
    "cumulative sum": lambda x, w: jnp.cumsum(x, 1),
    "sort": lambda x, w: jnp.sort(x, -1),
    "top k": lambda x, w: jax.lax.top_k(x, 3)[0],
    "flatten": lambda x, w: x.reshape(len(x), -1),
    "join and divide": lambda x, w: (x.reshape(-1, 8) @ w).reshape(-1, 6, 8),
    "windows": lambda x, w: x.reshape(-1, 2, 3, 8).transpose(1, 0, 2, 3).reshape(-1, 3, 8) @ w,
    "windows with a bias": lambda x, w: (
        x.reshape(-1, 2, 3, 8).reshape(-1, 3, 8) + jnp.tile(w[:6].reshape(2, 3, 8), (len(x), 1, 1))
    ),
    "squeeze and expand": lambda x, w: x[..., None].squeeze(-1)[:, None],
    "broadcast": lambda x, w: jnp.broadcast_to(x[:, None], (len(x), 5, 6, 8)),
    "reverse positions": lambda x, w: x[:, ::-1],
    "concatenate positions": lambda x, w: jnp.concatenate([x, jnp.zeros((len(x), 2, 8))], 1),
    "a token for each example": lambda x, w: jnp.concatenate([jnp.broadcast_to(w[:1], (len(x), 1, 8)), x], 1),
    "stack": lambda x, w: jnp.stack([x, -x], 1),
    "split positions": lambda x, w: jnp.split(x, 2, 1)[0],
    "pad positions": lambda x, w: jnp.pad(x, ((0, 0), (1, 1), (0, 0))),
    "slice positions": lambda x, w: x[:, 1:5:2],
    "dynamic slice": lambda x, w: jax.lax.dynamic_slice_in_dim(x, (w[0, 0] > 0).astype(int), 2, 1),
    "dynamic update": lambda x, w: jax.lax.dynamic_update_slice(x, x[:, :1], (0, 2, 0)),
    "take positions": lambda x, w: x[:, jnp.array([0, 3, 1])],
    "look up": lambda x, w: w[jnp.clip(x.astype(int), 0, 7)],
    "take along": lambda x, w: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
    "one position of each": lambda x, w: jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1),
    "convolution": lambda x, w: jax.lax.conv_general_dilated(
        x, w[None, :, :3], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    ),
    "max pool": lambda x, w: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 2, 1), "VALID"),
    "average pool": lambda x, w: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 1), (1, 2, 1), "SAME"),
    "Fourier transform": lambda x, w: jnp.abs(jnp.fft.fft(x, axis=-1)),
    "Cholesky": lambda x, w: jnp.linalg.cholesky(x @ x.transpose(0, 2, 1) + 9 * jnp.eye(6)),
    "vmap": lambda x, w: jax.vmap(lambda one: one @ w + one.sum())(x),
    "scan over layers": lambda x, w: jax.lax.scan(lambda h, k: (jnp.tanh(h @ k), None), x, jnp.stack([w, w]))[
        0
    ],
    "scan over positions": lambda x, w: jax.lax.scan(
        lambda h, one: (h + one, h * one), x[:, 0], x.transpose(1, 0, 2)
    )[1],
    "while": lambda x, w: jax.lax.fori_loop(0, 3, lambda i, h: jnp.sin(h), x),
    "cond": lambda x, w: jax.lax.cond(w[0, 0] > 0, lambda a: a * 2, lambda a: a - 1, x),
    "jit": lambda x, w: jax.jit(lambda a: jnp.sin(a) @ w)(x),
    "custom derivative": lambda x, w: jax.nn.relu(jax.nn.gelu(x)),
    "checkpoint": lambda x, w: jax.checkpoint(lambda a: jnp.sin(a @ w))(x),
    "low precision": lambda x, w: x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16),
    "standardized kernel": lambda x, w: x @ ((w - w.mean(0)) / w.std(0)),
    "a query for each example": lambda x, w: jnp.einsum(
        "bqd,bkd->bqk", jnp.broadcast_to(w[:1], (len(x), 1, 8)) @ w, x
    ),
    "batch in the middle": lambda x, w: jnp.einsum("sbd,de->sbe", x.transpose(1, 0, 2), w),
    "batch last": lambda x, w: jnp.einsum("dsb,de->esb", x.T, w),
    "heads": lambda x, w: jnp.einsum("bqhd,bkhd->bhqk", *[x.reshape(len(x), 6, 2, 4)] * 2),
    "one-hot tokens": lambda x, w: jax.nn.one_hot(tokens(x), 8) @ w,
    "embedding of tokens": lambda x, w: jnp.take(w, tokens(x), axis=0, mode="fill"),
    "causal mask": lambda x, w: jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((6, 6), bool)), x @ x.mT, -1e9)),
    "mask of each example": lambda x, w: jax.nn.softmax(
        jnp.where(x[:, None, :, 0] > 0, x @ x.mT, jnp.finfo(x.dtype).min)
    ),
    "rotary positions": lambda x, w: (
        ((x.reshape(len(x), 6, 4, 2) @ jnp.array([1, 1j])) * jnp.exp(1j * jnp.arange(6.0))[:, None]).real
    ),
    "table at positions of each example": lambda x, w: x * jnp.cos(w)[jnp.argsort(x[:, :, 0], -1)],
    "dot-product attention": lambda x, w: attention(x),
    "causal attention": lambda x, w: attention(x, is_causal=True),
    "attention with lengths": lambda x, w: attention(
        x, key_value_seq_lengths=1 + x[:, :, 0].argmax(1).astype(jnp.int32)
    ),
    "group norm": lambda x, w: flax.linen.GroupNorm(2, use_bias=False, use_scale=False).apply({}, x),
    "instance norm": lambda x, w: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True),
    "average pool without padding": lambda x, w: flax.linen.avg_pool(
        x[..., None], (3, 3), (1, 1), "SAME", count_include_pad=False
    ),
    "resize": lambda x, w: jax.image.resize(x, (len(x), 12, 4), "bilinear"),
    "nearest resize": lambda x, w: jax.image.resize(x, (len(x), 12, 4), "nearest"),
    "real Fourier transform": lambda x, w: jnp.abs(jnp.fft.rfft(x, axis=1)),
    "cumulative product": lambda x, w: jax.lax.associative_scan(jnp.multiply, x, axis=1),
    "sum over segments of positions": lambda x, w: jax.vmap(
        lambda one: jax.ops.segment_sum(one, jnp.argsort(one[:, 0]) // 2, 3)
    )(x),
    "write to a position": lambda x, w: x.at[:, 0].set(w[0]).at[:, jnp.array([1, 3])].add(1.0),
    "write to a position of each": lambda x, w: x.at[jnp.arange(len(x)), x[:, :, 0].argmax(1)].set(0.0),
    "read a position of each": lambda x, w: x[jnp.arange(len(x)), x[:, :, 0].argmax(1)],
    "read two positions of each": lambda x, w: x[
        jnp.arange(len(x))[:, None], jnp.argsort(x[:, :, 0], 1)[:, :2], 3
    ],
    "slice of each": lambda x, w: jax.vmap(
        lambda one: jax.lax.dynamic_slice_in_dim(one, one[:, 0].argmax(), 2)
    )(x),
    "bins of each": lambda x, w: jax.vmap(lambda one: jnp.bincount(tokens(one[:, 0]), length=8))(x),
    "search": lambda x, w: jnp.searchsorted(jnp.sort(w[0]), x),
    "quantile": lambda x, w: jnp.quantile(x, 0.3, axis=1),
    "branch of each": lambda x, w: jax.vmap(lambda one: jax.lax.cond(one[0, 0] > 0, jnp.sin, jnp.cos, one))(
        x
    ),
    "loop over layers": lambda x, w: jax.lax.map(lambda kernel: x @ kernel, jnp.stack([w, w])),
    "loop over positions": lambda x, w: jax.lax.map(lambda one: one @ w, x.transpose(1, 0, 2)),
    "own derivative": lambda x, w: scaled(x @ w),
    "policy": lambda x, w: jax.checkpoint(
        lambda a: jnp.sin(a @ w), policy=jax.checkpoint_policies.dots_saveable
    )(x),
    "gradient inside": lambda x, w: jax.vmap(jax.grad(lambda one: jnp.sin(one @ w).sum()))(x),
    "linear solve": lambda x, w: jnp.linalg.inv(x @ x.mT + 9 * jnp.eye(6)) @ x,
    "eigenvalues": lambda x, w: jnp.linalg.eigh(x @ x.mT)[0],
    "singular values": lambda x, w: jnp.linalg.svd(x, compute_uv=False),
    "special functions": lambda x, w: jnp.sinc(x) + jax.scipy.special.i0(x) + jnp.ldexp(jnp.frexp(x)[0], 2),
    "constant row": lambda x, w: x + jnp.ones((len(x), 1, 1)),
    "look up zeros": lambda x, w: x + w[jnp.zeros_like(x[..., 0], int)],
    "look up positions": lambda x, w: x + w[jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])],
    "look up in equal rows": lambda x, w: x + jnp.broadcast_to(w[:1], (len(x), 8))[:, jnp.arange(8)][:, None],
}
MIXING = {
    "batch mean": (lambda x, w: x - x.mean(0), "reduces over the examples"),
    "batch statistics": (lambda x, w: (x - x.mean((0, 1))) / x.std((0, 1)), "reduces over the examples"),
    "mixup": (lambda x, w: 0.5 * x + 0.5 * x[::-1], "reverses the order"),
    "roll": (lambda x, w: x + jnp.roll(x, 1, 0), "selects some examples"),
    "similarity": (lambda x, w: jnp.einsum("bij,cij->bc", x, x), "multiplies examples with one another"),
    "sum of products": (lambda x, w: jnp.einsum("bij,bik->jk", x, x), "sums products over the examples"),
    "position in the batch": (
        lambda x, w: x + jnp.arange(len(x))[:, None, None],
        "differs between the positions",
    ),
    "constant noise": (
        lambda x, w: x + jax.random.normal(jax.random.key(0), x.shape),
        "differs between the pos",
    ),
    "parameter of each position": (
        lambda x, w: x * w.ravel()[: len(x), None, None],
        "differs between the pos",
    ),
    "look up positions in the batch": (lambda x, w: x + w[jnp.arange(len(x))][:, None], "differs between"),
    "look up columns of different rows": (
        lambda x, w: x + w[jnp.arange(len(x))][:, jnp.array([0, 1])].sum(1)[:, None, None],
        "differs between",
    ),
    "batch size": (lambda x, w: x / len(x), "depends on the batch size"),
    "cumulative over the batch": (lambda x, w: jnp.cumsum(x, 0), "accumulates over the examples"),
    "sort the batch": (lambda x, w: jnp.sort(x, 0), "sorts the examples"),
    "first example": (lambda x, w: x[:1], "selects some examples"),
    "every second example": (lambda x, w: x[::2], "selects some examples"),
    "loop over examples": (lambda x, w: jax.lax.map(lambda one: one @ w, x), "loops over the examples"),
    "loop of the batch size": (
        lambda x, w: jax.lax.fori_loop(0, len(x), lambda i, h: jnp.sin(h), x),
        "depends on the batch size",
    ),
    "concatenate batches": (lambda x, w: jnp.concatenate([x, x], 0), "concatenates along the axis"),
    "halves": (lambda x, w: jnp.split(x, 2, 0)[0], "the batch|selects some"),
    "window over the batch": (
        lambda x, w: jax.lax.reduce_window(x, 0.0, jax.lax.add, (2, 1, 1), (1, 1, 1), "SAME"),
        "window over the examples",
    ),
    "padding of the batch": (lambda x, w: jnp.pad(x, ((1, 0), (0, 0), (0, 0))), "pads the batch"),
    "transposed reshape": (lambda x, w: x.transpose(1, 0, 2).reshape(-1, 12), "joins or divides"),
    "write to an example": (lambda x, w: x.at[0].set(0.0), ""),
    "index of one into all": (
        lambda x, w: x.at[jnp.clip(x[:, 0, 0].astype(int), 0, 3)].get(wrap_negative_indices=False),
        "an index of one example into all",
    ),
    "write to different places": (
        lambda x, w: x.at[tokens(x[:, 0, 0]) % 4].add(1.0),
        "depends on the batch size|writes to some examples",
    ),
    "sum over segments of the batch": (
        lambda x, w: jax.ops.segment_sum(x, jnp.arange(len(x)) // 2, 3),
        "writes to some examples",
    ),
    "index beside the number of the example": (
        lambda x, w: x[jnp.arange(len(x))[::-1], x[:, :, 0].argmax(1)],
        "reverses|differs between|depends on the batch size",
    ),
    "loop until all examples are done": (
        lambda x, w: jax.vmap(
            lambda one: jax.lax.while_loop(lambda h: jnp.abs(h).sum() > 10, lambda h: h / 2, one)
        )(x),
        "while has a condition that depends on examples",
    ),
    "unknown primitive": (
        lambda x, w: jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        "pure_callback has no rule",
    ),
}


@pytest.mark.parametrize("name", APART)
def test_examples_are_kept_apart(name):
    program, mixing = analysed(APART[name], X, W)
    assert mixing == []
    assert isinstance(place_of_result(program), PerExample)
    assert audit(program, X, W) >= 1


@pytest.mark.parametrize("name", MIXING)
def test_examples_that_mix_are_found(name):
    function, reason = MIXING[name]
    program, mixing = analysed(function, X, W)
    assert mixing, "nothing was found"
    assert isinstance(place_of_result(program), Mixed)
    assert any(part in each.text for part in reason.split("|") for each in mixing), mixing
    assert all("test_rules.py" in each.source for each in mixing)
    audit(program, X, W)


def test_each_rule_is_used_by_a_test():
    """Lists primitives with a rule that no function above uses, apart from element-wise ones."""
    used = set()
    for function in [*APART.values(), *(each for each, _ in MIXING.values())]:
        used |= {each.primitive.name for each in analysed(function, X, W)[0].equations}
    rare = {
        "bitcast_convert_type",
        "cumlogsumexp",
        "cummax",
        "cummin",
        "cumprod",
        "lu",
        "optimization_barrier",
    }
    rare |= {
        "qr",
        "reduce",
        "reduce_and",
        "reduce_or",
        "reduce_prod",
        "reduce_xor",
        "reduce_window",
        "argmin",
    }
    rare |= {
        "reduce_min",
        "reduce_window_min",
        "triangular_solve",
        "expand_dims",
        "tile",
        "stack",
        "unstack",
        "split",
    }
    rare |= {"squeeze", "top_k", "reduce_max", "reduce_sum"}
    rare |= {"scatter-max", "scatter-min", "scatter-mul", "scatter-sub"}
    assert {*RULES} - ELEMENTWISE - used <= rare
