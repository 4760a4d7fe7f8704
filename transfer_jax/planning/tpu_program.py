"""Traffic to the memory and estimated cycles of a compiled TPU program, from its text.

`cost_analysis()["bytes accessed"]` of a TPU program counts operands and results in every memory, though most
activations stay in the memory on the chip (VMEM). Here an instruction reads its operands and writes its
results where their layout names no other memory than the high-bandwidth memory (HBM), with the padding of
tiles.

- A fusion that only slices an operand reads the slice. One that updates a slice of an operand writes the
  slice.
- The body of a loop counts as often as it runs.
- Cycles are those that the compiler estimates for each instruction. It estimates none for kernels of Pallas
  and transfers between chips: `without_cycles` counts them.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

BYTES = {
    **dict.fromkeys(("pred", "s8", "u8", "f8e4m3fn", "f8e5m2"), 1.0),
    **dict.fromkeys(("s16", "u16", "f16", "bf16"), 2.0),
    **dict.fromkeys(("s32", "u32", "f32"), 4.0),
    **dict.fromkeys(("s64", "u64", "f64", "c64"), 8.0),
    **dict.fromkeys(("s4", "u4"), 0.5),
}
"""Bytes of a number by the name of its type; names that are missing, such as tokens, have no bytes."""
_FREE = (
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "iota", "opt-barrier"),
    *("partition-id", "replica-id", "after-all"),
)
"""Instructions that move nothing themselves."""
_SLICES = ("dynamic-slice", "slice", "gather")
_NO_TRAFFIC = ("AllocateBuffer", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape")
"""Custom calls that move nothing."""

_HEAD = re.compile(r"^(?:ENTRY )?%(?P<name>[\w.\-]+) \(.*\{$")
_LINE = re.compile(
    r"^\s*(?P<root>ROOT )?%(?P<name>[\w.\-]+) = (?P<type>\(.*?\)(?= [a-z])|\S+) "
    r"(?P<op>[\w\-]+)\((?P<rest>.*)$"
)
_ARRAY = re.compile(r"(?P<type>\w+)\[(?P<shape>[\d,]*)\](?:\{(?P<layout>[^}]*)\})?")
_LAYOUT = re.compile(r"(?P<order>[\d,]*)(?::T\((?P<tile>[\d,]+)\))?")
_SPACE = re.compile(r"S\(\d+\)")
_NAME = re.compile(r"%([\w.\-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CALLED = re.compile(r"(calls|body|condition|to_apply)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_NUMBER = re.compile(r"^(\d+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in the text of a program.

    Attributes:
        bytes: Its size, with the padding of its tiles.
        in_hbm: Whether it is in the high-bandwidth memory.
    """

    bytes: float
    in_hbm: bool


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


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """The cost of a compiled program on one chip.

    Attributes:
        hbm_bytes: Bytes read from and written to the high-bandwidth memory.
        cycles: Cycles that the compiler estimates.
        without_cycles: Number of executed instructions without an estimate: kernels and transfers.
    """

    hbm_bytes: float = 0.0
    cycles: float = 0.0
    without_cycles: int = 0

    def __add__(self, other: "ProgramCost") -> "ProgramCost":
        return ProgramCost(
            self.hbm_bytes + other.hbm_bytes,
            self.cycles + other.cycles,
            self.without_cycles + other.without_cycles,
        )

    def __mul__(self, count: int) -> "ProgramCost":
        return ProgramCost(self.hbm_bytes * count, self.cycles * count, self.without_cycles * count)


class TpuProgram:
    """A compiled program for a TPU.

    Args:
        text: The text of the optimized program, as `compiled.as_text()` returns it.

    Raises:
        ValueError: If the text has no entry computation.
    """

    def __init__(self, text: str) -> None:
        self._computations, self._entry = _parse(text)
        if not self._entry:
            raise ValueError("the text is not that of a compiled program: it has no ENTRY")

    @functools.cached_property
    def cost(self) -> ProgramCost:
        """The cost of the program."""
        return self._cost(self._entry)

    def costs(self) -> Iterator[tuple[Instruction, ProgramCost]]:
        """Yields the instructions of the entry computation with their costs, to attribute them."""
        known = self._known(self._entry)
        for each in self._computations[self._entry]:
            yield each, self._cost_of(each, known)

    def _cost(self, name: str) -> ProgramCost:
        known = self._known(name)
        return sum((self._cost_of(each, known) for each in self._computations[name]), ProgramCost())

    def _known(self, name: str) -> dict[str, Instruction]:
        return {each.name: each for each in self._computations[name]}

    def _cost_of(self, each: Instruction, known: Mapping[str, Instruction]) -> ProgramCost:
        if each.op in _FREE or each.op.endswith("-done"):
            return ProgramCost()
        if each.op == "while":
            return (self._cost(each.called["body"]) + self._cost(each.called["condition"])) * self._trips(
                each
            )
        if each.op == "call":
            return self._cost(each.called["to_apply"])
        if each.op == "conditional":
            branches = _NAME.findall((_BRANCHES.search(each.rest) or [""])[0])
            return max((self._cost(branch) for branch in branches), key=lambda cost: cost.hbm_bytes)
        found = _CYCLES.search(each.rest)
        cycles = float(found[1]) if found else 0.0
        return ProgramCost(self._traffic(each, known), cycles, int(self._is_unknown(each) and not found))

    def _is_unknown(self, each: Instruction) -> bool:
        """Returns True for kernels and transfers, whose cycles the compiler does not estimate."""
        if each.op == "custom-call":
            return (_TARGET.search(each.rest) or ["", ""])[1] not in _NO_TRAFFIC
        return each.op.startswith(("all-", "reduce-scatter", "collective-", "send", "recv"))

    def _trips(self, loop: Instruction) -> int:
        """Returns how often a loop runs: its counter starts at 0 and is compared with a constant."""
        if found := _TRIPS.search(loop.rest):
            return int(found[1])
        condition = self._computations[loop.called["condition"]]
        constants = {each.name: int(found[1]) for each in condition if (found := _constant(each))}
        root = next(each for each in condition if each.root)
        limits = [constants[name] for name in root.operands if name in constants]
        if len(limits) != 1:
            raise ValueError(f"the loop {loop.name} runs an unknown number of times: {root.rest[:80]}")
        return limits[0]

    def _traffic(self, each: Instruction, known: Mapping[str, Instruction]) -> float:
        """Returns the bytes that an instruction reads from and writes to the high-bandwidth memory."""
        operands = [known[name] for name in dict.fromkeys(each.operands) if name in known]
        if each.op == "custom-call" and (_TARGET.search(each.rest) or ["", ""])[1] in _NO_TRAFFIC:
            return 0.0
        if each.op == "copy-start":
            return _hbm(operands[0].arrays) + _hbm(each.arrays[:1])
        if each.op in ("slice-start", "async-start"):
            return self._started(each, operands)
        if each.op in _SLICES:
            return 2 * _hbm(each.arrays) if operands and _hbm(operands[0].arrays) else _hbm(each.arrays)
        if each.op == "dynamic-update-slice":
            update = sum(array.bytes for array in operands[1].arrays)
            return _hbm(operands[1].arrays) + update * bool(_hbm(each.arrays))
        if each.op == "fusion":
            return self._fused(each, known)
        return _hbm(each.arrays) + sum(_hbm(operand.arrays) for operand in operands)

    def _started(self, each: Instruction, operands: list[Instruction]) -> float:
        """Returns the traffic of an asynchronous slice or computation, which moves its smallest array."""
        sizes = [array for array in each.arrays if array.bytes > 1024]
        if not sizes:
            return 0.0
        moved = min(sizes, key=lambda array: array.bytes)
        return moved.bytes * (bool(operands and _hbm(operands[0].arrays)) + moved.in_hbm)

    def _fused(self, each: Instruction, known: Mapping[str, Instruction]) -> float:
        body = each.called["calls"]
        updated, written = self._updates(body)
        total = 0.0
        for place, name in enumerate(each.operands):
            operand = known.get(name)
            if operand is not None and _hbm(operand.arrays) and place not in updated:
                total += min(_hbm(operand.arrays), self._read(body, place))
        return total + (written if written is not None else _hbm(each.arrays)) * bool(_hbm(each.arrays))

    def _read(self, body: str, place: int) -> float:
        """Returns the bytes of a parameter that a fusion reads: those of slices, if it only slices it."""
        total, names = 0.0, {_parameter(self._computations[body], place)}
        for inner in self._computations[body]:
            if not names.intersection(inner.operands):
                continue
            if inner.op == "bitcast":
                names.add(inner.name)
            elif inner.op == "fusion":
                places = [at for at, name in enumerate(inner.operands) if name in names]
                total += sum(self._read(inner.called["calls"], at) for at in places)
                if self._passes(inner.called["calls"], places):
                    names.add(inner.name)
            elif inner.op in _SLICES and inner.operands[0] in names:
                total += sum(array.bytes for array in inner.arrays)
            elif inner.op != "dynamic-update-slice" or inner.operands[0] not in names:
                return math.inf
        return total

    def _passes(self, body: str, places: list[int]) -> bool:
        """Returns True if the result of a fusion is one of some parameters, unchanged."""
        by_name = {inner.name: inner for inner in self._computations[body]}
        root = next(inner for inner in by_name.values() if inner.root)
        return not {*places}.isdisjoint(_places(_behind_bitcasts(root, by_name)))

    def _updates(self, name: str) -> tuple[set[int], float | None]:
        """Returns the positions of parameters that a fusion updates in place, and the bytes that it writes.

        None stands for a fusion whose results are no updates.
        """
        body = self._computations[name]
        by_name = {inner.name: inner for inner in body}
        root = next(inner for inner in body if inner.root)
        results = [by_name[each] for each in root.operands] if root.op == "tuple" else [root]
        places: set[int] = set()
        total, updates = 0.0, False
        for result in results:
            update = _behind_bitcasts(result, by_name)
            if update.op == "dynamic-update-slice":
                target = _behind_bitcasts(by_name[update.operands[0]], by_name)
                places.update(_places(target))
                total += sum(array.bytes for array in by_name[update.operands[1]].arrays)
                updates = True
            else:
                total += _hbm(result.arrays)
        return places, total if updates else None


def _parameter(body: list[Instruction], place: int) -> str:
    """Returns the name of the parameter at a position."""
    return next((each.name for each in body if place in _places(each)), "")


def _places(each: Instruction) -> list[int]:
    """Returns the position of a parameter; nothing for other instructions."""
    found = _NUMBER.match(each.rest) if each.op == "parameter" else None
    return [int(found[1])] if found else []


def _behind_bitcasts(each: Instruction, by_name: Mapping[str, Instruction]) -> Instruction:
    while each.op == "bitcast":
        each = by_name[each.operands[0]]
    return each


def _constant(each: Instruction) -> re.Match | None:
    return _NUMBER.match(each.rest) if each.op == "constant" else None


def _hbm(arrays: tuple[Array, ...]) -> float:
    return sum(array.bytes for array in arrays if array.in_hbm)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns the instructions of all computations by name, and the name of the entry computation."""
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
    return computations, entry


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
        shape = [int(size) for size in found["shape"].split(",") if size]
        layout = found["layout"] or ""
        count = math.prod(_padded(shape, layout))
        yield Array(BYTES[found["type"]] * count, not _SPACE.search(layout))


def _padded(shape: list[int], layout: str) -> list[int]:
    """Returns the shape in the order of the memory, padded to whole tiles."""
    found = _LAYOUT.match(layout)
    if not shape or found is None or not found["tile"]:
        return shape
    physical = [shape[int(axis)] for axis in reversed(found["order"].split(","))]
    tile = [int(size) for size in found["tile"].split(",")]
    if len(tile) > len(physical):
        return shape
    kept = len(physical) - len(tile)
    return physical[:kept] + [
        -(-size // side) * side for size, side in zip(physical[kept:], tile, strict=True)
    ]
