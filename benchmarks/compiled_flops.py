"""The operations of a compiled program: of its matrix products and convolutions, with loops."""

import dataclasses
import math
import re
from typing import Any

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\([^=]*?\)|\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"^\w+\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)\}?")


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """A line of a compiled program: the sizes of its result, its operation, and all that follows the name."""

    sizes: tuple[int, ...]
    operation: str
    rest: str


def compiled_flops(compiled: Any) -> float:
    """Returns the floating-point operations of the matrix products and convolutions of a compiled program.

    XLA's own count includes other operations, and counts the body of a loop once.

    Args:
        compiled: The result of `jax.jit(…).lower(…).compile()`.
    """
    computations, entry = _parse(compiled.as_text())
    return _flops(computations, entry)


def _parse(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Returns the instructions of each computation by name, and the name of the first computation to run."""
    computations: dict[str, dict[str, _Instruction]] = {}
    current: dict[str, _Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            current = computations.setdefault(found[2], {})
            entry = found[2] if found[1] else entry
        elif found := _INSTRUCTION.match(line):
            current[found[1]] = _Instruction(_sizes(found[2]), found[3], found[4])
    return computations, entry


def _sizes(text: str) -> tuple[int, ...]:
    found = _SHAPE.match(text)
    return tuple(map(int, found[1].split(","))) if found and found[1] else ()


def _flops(computations: dict[str, dict[str, _Instruction]], name: str) -> float:
    instructions, total = computations[name], 0.0
    for each in instructions.values():
        if each.operation in ("dot", "convolution"):
            operands = re.findall(r"%([\w.\-]+)", each.rest.split("), ")[0])
            left, right = (instructions[operand].sizes for operand in operands[:2])
            count = _dot if each.operation == "dot" else _convolution
            total += count(each, left, right)
        called = [one for found in _CALLED.findall(each.rest) for one in re.findall(r"[\w.\-]+", found)]
        inner = [_flops(computations, one) for one in called if one in computations]
        if inner:
            total += max(inner) if each.operation == "conditional" else _times(each) * sum(inner)
    return total


def _times(instruction: _Instruction) -> int:
    if instruction.operation != "while":
        return 1
    found = re.search(r'known_trip_count[^\d]*"(\d+)"', instruction.rest)
    if found is None:
        raise ValueError("a loop runs an unknown number of times")
    return int(found[1])


def _dot(dot: _Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.rest)
    axes = [int(axis) for axis in found[1].split(",") if axis] if found else []
    return 2 * math.prod(dot.sizes) * math.prod(left[axis] for axis in axes)


def _convolution(convolution: _Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> float:
    """Returns the operations of a convolution; zeros between the pixels of a dilated image do not count."""
    numbers = re.search(r"dim_labels=\w+_(\w+)->", convolution.rest)
    dilated = re.search(r"lhs_dilate=([\dx]+)", convolution.rest)
    assert numbers is not None
    window = math.prod(size for size, name in zip(right, numbers[1], strict=True) if name.isdigit())
    inputs = right[numbers[1].index("i")]
    zeros = math.prod(map(int, dilated[1].split("x"))) if dilated else 1
    return 2 * math.prod(convolution.sizes) * window * inputs / zeros
