"""The instructions of a compiled program for a TPU, from its text (HLO)."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1.0),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2.0),
    **dict.fromkeys(("s32", "u32", "f32"), 4.0),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8.0),
    **dict.fromkeys(("s4", "u4"), 0.5),
}
"""Bytes of a number by the name of its type; names that are missing, such as tokens, have no bytes."""

_HEAD = re.compile(r"^(?:ENTRY )?%(?P<name>[\w.\-]+) \(.*\{$")
_LINE = re.compile(
    r"^\s*(?P<root>ROOT )?%(?P<name>[\w.\-]+) = (?P<type>\(.*?\)(?= [a-z])|\S+) "
    r"(?P<op>[\w\-]+)\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"(?P<type>\w+)\[(?P<shape>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?")
_LAYOUT = re.compile(r"(?P<order>[\d,]*)(?::T\((?P<tile>[\d,]+)\))?")
_SPACE = re.compile(r"S\(\d+\)")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(calls|body|condition|to_apply)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_NUMBER = re.compile(r"^(\d+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in the text of a program.

    Attributes:
        type: The name of the type of its numbers, such as `bf16`.
        shape: Its shape.
        bytes: Its size, with the padding of its tiles.
        in_hbm: Whether it is in the high-bandwidth memory, not in a memory on the chip.
    """

    type: str
    shape: tuple[int, ...]
    bytes: float
    in_hbm: bool

    @property
    def unpadded(self) -> float:
        """Its size in bytes without padding."""
        return BYTES[self.type] * math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a program.

    Attributes:
        name: Its name.
        op: The name of the operation, such as `fusion`.
        arrays: Its results.
        operands: The names of its operands.
        rest: The text after the operation's name.
        root: Whether it is the result of its computation.
    """

    name: str
    op: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    rest: str
    root: bool

    @functools.cached_property
    def called(self) -> Mapping[str, str]:
        """The names of the computations that it calls, by their role."""
        return dict(_CALLED.findall(self.rest))

    @property
    def branches(self) -> list[str]:
        """The names of the computations of which it runs one."""
        return _NAME.findall((_BRANCHES.search(self.rest) or [""])[0])

    @property
    def target(self) -> str:
        """The name of the function that a custom call runs; empty for other instructions."""
        return (_TARGET.search(self.rest) or ["", ""])[1] if self.op == "custom-call" else ""

    @property
    def number(self) -> int | None:
        """The position of a parameter, or the value of an integer; None for other instructions."""
        found = _NUMBER.match(self.rest) if self.op in ("parameter", "constant") else None
        return int(found[1]) if found else None

    @property
    def hbm_bytes(self) -> float:
        """Bytes of those of its results that are in the high-bandwidth memory."""
        return sum(array.bytes for array in self.arrays if array.in_hbm)


def parse_program(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns the instructions of all computations by name, and the name of the entry computation.

    Args:
        text: The text of the optimized program, as `compiled.as_text()` returns it.

    Raises:
        ValueError: If the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if found := _HEAD.match(line):
            current = computations.setdefault(found["name"], [])
            entry = found["name"] if line.startswith("ENTRY") else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _LINE.match(line)):
            inside = found["rest"][: _closing(found["rest"])]
            current.append(
                Instruction(
                    name=found["name"],
                    op=found["op"],
                    arrays=tuple(_arrays(found["type"])),
                    operands=tuple(_NAME.findall(inside)),
                    rest=found["rest"],
                    root=bool(found["root"]),
                )
            )
    if not entry:
        raise ValueError("the text is not that of a compiled program: it has no ENTRY")
    return computations, entry


def by_name(computation: Sequence[Instruction]) -> dict[str, Instruction]:
    """Returns the instructions of a computation by name."""
    return {each.name: each for each in computation}


def _closing(text: str) -> int:
    """Returns the position of the parenthesis that closes the list of operands."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    return len(text)


def _arrays(type: str) -> Iterator[Array]:
    for found in _ARRAY.finditer(type):
        if found["type"] not in BYTES:
            continue
        shape = tuple(int(size) for size in found["shape"].split(",") if size)
        layout = found["layout"] or ""
        count = math.prod(_padded(shape, layout))
        yield Array(found["type"], shape, BYTES[found["type"]] * count, not _SPACE.search(layout))


def _padded(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Returns the shape in the order of the memory, padded to whole tiles."""
    found = _LAYOUT.match(layout)
    if not shape or found is None or not found["tile"]:
        return shape
    physical = tuple(shape[int(axis)] for axis in reversed(found["order"].split(",")))
    tile = [int(size) for size in found["tile"].split(",")]
    if len(tile) > len(physical):
        return shape
    kept = len(physical) - len(tile)
    padded = (-(-size // side) * side for size, side in zip(physical[kept:], tile, strict=True))
    return (*physical[:kept], *padded)
