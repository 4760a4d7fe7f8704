"""FLOPs of matrix products and convolutions in the text of a compiled program."""

import functools
import math
import re
from collections.abc import Sequence

import numpy as np

from transfer_jax.planning.program_text import Array, Instruction

_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_GROUPS = re.compile(r"batch_group_count=(\d+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")


def product_flops(product: Instruction, left: Array, right: Array) -> float:
    """Returns the FLOPs of a `dot` or a `convolution`, two for each multiply-add.

    Positions of a window in the padding or between dilated elements do not count, as in XLA.

    Args:
        product: The instruction.
        left: Its first operand.
        right: Its second operand.
    """
    (result,) = product.arrays
    if product.op == "dot":
        found = _CONTRACTED.search(product.rest)
        axes = [int(axis) for axis in found[1].split(",") if axis] if found else []
        return 2.0 * math.prod(result.shape) * math.prod(left.shape[axis] for axis in axes)
    found = _LABELS.search(product.rest)
    if found is None:
        raise ValueError(f"the convolution {product.name} has no dim_labels")
    of_left, of_right, of_result = found.groups()
    window = dict(part.split("=") for part in (_WINDOW.search(product.rest) or ["", ""])[1].split())
    groups = int((_GROUPS.search(product.rest) or ["", "1"])[1])
    total = 2.0 * left.shape[of_left.index("b")] / groups
    total *= right.shape[of_right.index("i")] * right.shape[of_right.index("o")]
    for axis, label in enumerate(sorted(each for each in of_left if each.isdigit())):
        total *= _positions(
            left.shape[of_left.index(label)],
            right.shape[of_right.index(label)],
            result.shape[of_result.index(label)],
            stride=_at(window.get("stride"), axis, 1),
            low=_at(window.get("pad"), axis, 0),
            dilation=_at(window.get("lhs_dilate"), axis, 1),
            spacing=_at(window.get("rhs_dilate"), axis, 1),
        )
    return total


def is_integer(operands: Sequence[Array]) -> bool:
    """Returns True for the operands of a product of 8-bit or 4-bit integers."""
    return all(operand.type in ("s8", "u8", "s4", "u4") for operand in operands)


def _at(text: str | None, axis: int, default: int) -> int:
    """Returns the number of an axis in a text such as `1x2`; of a pair as in `0_1x2_3`, the first."""
    return default if text is None else int(text.split("x")[axis].split("_")[0])


@functools.cache
def _positions(
    inputs: int, window: int, outputs: int, *, stride: int, low: int, dilation: int, spacing: int
) -> int:
    """Returns the number of pairs of an output and a window element that meet an element of the input."""
    at = np.arange(outputs)[:, None] * stride + np.arange(window)[None] * spacing - low
    return int(((at >= 0) & (at <= (inputs - 1) * dilation) & (at % dilation == 0)).sum())
