"""FLOPs of products, against counts by hand and XLA's own on a CPU."""

import re

import jax
import jax.numpy as jnp
import pytest

from transfer_jax.planning.program_flops import is_integer, product_flops
from transfer_jax.planning.program_text import parse_program


def flops(line: str, *shapes: str) -> float:
    """Returns the FLOPs of a line whose operands have given shapes."""
    operands = "".join(f"  %p{at} = {shape} parameter({at})\n" for at, shape in enumerate(shapes))
    computations, entry = parse_program(f"ENTRY %main () -> f32[] {{\n{operands}  ROOT %r = {line}\n}}\n")
    left, right, product = computations[entry]
    return product_flops(product, left.arrays[0], right.arrays[0])


@pytest.mark.parametrize(
    ("line", "shapes", "expected"),
    [
        (
            "f32[8,32] convolution(%p0, %p1), dim_labels=bf_io->bf",
            ("f32[8,16]", "f32[16,32]"),
            2 * 8 * 16 * 32,
        ),
        (
            "f32[8,32] dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
            ("f32[8,16]", "f32[16,32]"),
            2 * 8 * 16 * 32,
        ),
        (  # A grouped product of 12 heads as a dilated convolution, as the compiler for TPUs writes it.
            "bf16[4,12,7,7] convolution(%p0, %p1), window={size=4x12 stride=3x11 lhs_dilate=4x12}, "
            "dim_labels=0b1f_0o1i->01bf",
            ("bf16[4,7,12,64]", "bf16[4,7,12,64]"),
            2 * 4 * 12 * 7 * 7 * 64,
        ),
        (  # A product of a matrix with each head, as a padded convolution.
            "bf16[4,7,12,64] convolution(%p0, %p1), window={size=1x12 pad=0_0x11_11 rhs_reversal=0x1}, "
            "dim_labels=0bf1_i1o0->0b1f",
            ("bf16[4,7,768,1]", "bf16[768,12,64,1]"),
            2 * 4 * 7 * 768 * 768,
        ),
    ],
    ids=["matrix", "dot", "heads", "padded heads"],
)
def test_products(line, shapes, expected):
    assert flops(line, *shapes) == expected


@pytest.mark.parametrize(
    ("stride", "groups", "dilation", "padding"),
    [(1, 1, 1, "SAME"), (2, 1, 1, "SAME"), (1, 8, 1, "SAME"), (1, 2, 2, "VALID")],
    ids=["same", "strided", "depthwise", "dilated groups"],
)
def test_convolutions_as_xla_counts_them(stride, groups, dilation, padding):
    image, kernel = jnp.zeros((2, 9, 9, 8)), jnp.zeros((3, 3, 8 // groups, 16))

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    lowered = jax.jit(convolve).lower(image, kernel)
    (line,) = (each for each in lowered.as_text("hlo").splitlines() if " convolution(" in each)
    found = re.sub(r"convolution\(.*?\)", "convolution(%p0, %p1)", line.split(" = ", 1)[1])
    expected = (lowered.cost_analysis() or {})["flops"]
    assert flops(found, "f32[2,9,9,8]", f"f32[3,3,{8 // groups},16]") == expected


def test_integers():
    computations, entry = parse_program(
        "ENTRY %main () -> s32[] {\n  %a = s8[4] parameter(0)\n  %b = bf16[4] parameter(1)\n}\n"
    )
    left, right = (each.arrays[0] for each in computations[entry])
    assert is_integer([left, left])
    assert not is_integer([left, right])
