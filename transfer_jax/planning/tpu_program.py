"""Costs of a compiled TPU program, from its text: traffic to the memory, cycles, FLOPs, exchange.

`cost_analysis()["bytes accessed"]` of a TPU program counts operands and results in every memory, though most
activations stay in the memory on the chip (VMEM). Here an instruction reads its operands and writes its
results where their layout names no other memory than the high-bandwidth memory (HBM), with the padding of
tiles.

- A fusion that only slices an operand reads the slice. One that updates a slice of an operand writes the
  slice.
- The body of a loop counts as often as it runs.
- An exchange that takes place during other fusions appears in each of them, and counts where it starts.
- Cycles are those that the compiler estimates for each instruction. It estimates none for kernels of Pallas
  and for transfers between chips.
- A kernel that declares its cost (`pl.CostEstimate`) takes the longer of the time for its operations, at
  `KERNEL_FLOPS` and `KERNEL_TRANSCENDENTALS`, and the time for its bytes at the published bandwidth. This
  estimate is ours, and stays apart in `kernel_cycles`.
- FLOPs are those of matrix products and convolutions, and those that kernels declare.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

from transfer_jax.planning.chips import CHIPS, Chip
from transfer_jax.planning.exchange import channel_of, is_transfer, sent_bytes, sent_to_slices
from transfer_jax.planning.program_flops import is_integer, product_flops
from transfer_jax.planning.program_text import Instruction, parse_program

KERNEL_FLOPS = 35_000
"""FLOPs that a kernel is assumed to compute in a cycle of a core, beside its transcendental functions."""
KERNEL_TRANSCENDENTALS = 160
"""Transcendental functions that a kernel is assumed to compute in a cycle of a core.

Both are fitted to the compiler's schedules of our attention kernels, forward and backward, for 197 tokens on
v5e: within 3 % there and on v5p. On v6e, and for more tokens, the schedules are shorter, by half at most
(`benchmarks/kernel_schedule.py`). The vector unit limits the kernels, with their softmax.
"""
_FREE = (
    *("parameter", "tuple", "get-tuple-element", "bitcast", "constant", "iota", "opt-barrier"),
    *("partition-id", "replica-id", "after-all"),
)
"""Instructions that move nothing themselves."""
_FREE_TARGETS = (
    *("AllocateBuffer", "ConcatBitcast", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"),
    *("annotate_device_placement", "xla.sdy.FuncResultSharding", "LayoutConstraint", "Pin", "Unpin"),
    *("AsyncCollectiveStart", "AsyncCollectiveDone", "SliceId"),
)
"""Custom calls that move nothing and take no time."""
_START = "AsyncCollectiveStart"
"""The custom call in a fusion that starts an exchange."""
_ALIASED = "output_to_operand_aliasing"
_SLICES = ("dynamic-slice", "slice", "gather")
_PRODUCTS = ("dot", "convolution")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_DECLARED = re.compile(r'"cost_estimate":\{([^}]*)\}')
_FIELD = re.compile(r'"(\w+)":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class ProgramCost:
    """The cost of a compiled program on one chip.

    Attributes:
        hbm_bytes: Bytes read from and written to the high-bandwidth memory.
        cycles: Cycles that the compiler estimates.
        kernel_cycles: Cycles of the kernels that declare their cost: an estimate of ours.
        kernels: Number of executed kernels that declare their cost.
        without_cycles: Number of executed instructions without an estimate: transfers, and kernels that
            declare nothing.
        transfers: Number of executed transfers to other chips, a part of `without_cycles`.
        flops: FLOPs of matrix products, convolutions and kernels, two for each multiply-add.
        integer_flops: The part of them on 8-bit and 4-bit integers.
        exchanged: Bytes sent to other chips of the slice.
        exchanged_slices: Bytes sent to other slices.
    """

    hbm_bytes: float = 0.0
    cycles: float = 0.0
    kernel_cycles: float = 0.0
    kernels: int = 0
    without_cycles: int = 0
    transfers: int = 0
    flops: float = 0.0
    integer_flops: float = 0.0
    exchanged: float = 0.0
    exchanged_slices: float = 0.0

    def __add__(self, other: "ProgramCost") -> "ProgramCost":
        mine, others = dataclasses.astuple(self), dataclasses.astuple(other)
        return ProgramCost(*(one + two for one, two in zip(mine, others, strict=True)))

    def __mul__(self, count: int) -> "ProgramCost":
        return ProgramCost(*(each * count for each in dataclasses.astuple(self)))


class TpuProgram:
    """A compiled program for a TPU.

    Args:
        text: The text of the optimized program, as `compiled.as_text()` returns it.
        chip: The chip, on which the cycles of kernels depend.
        slices: Number of slices that the program runs on.

    Raises:
        ValueError: If the text has no entry computation.
    """

    def __init__(self, text: str, chip: Chip = CHIPS["v5e"], slices: int = 1) -> None:
        self._computations, self._entry = parse_program(text)
        self._chip, self._slices = chip, slices
        self._inside: dict[str, ProgramCost] = {}
        self._starts = {
            channel: name
            for name, body in self._computations.items()
            if any(each.target == _START for each in body)
            for each in body
            if (channel := channel_of(each)) is not None
        }

    @functools.cached_property
    def cost(self) -> ProgramCost:
        """The cost of the program."""
        return self._cost(self._entry)

    @functools.cached_property
    def compulsory_bytes(self) -> float:
        """Bytes that every program with these arguments and results reads and writes, without padding.

        Each argument is in the memory before the step and each result after it: parameters, optimizer state
        and batch are read once, new parameters and optimizer state are written once. An argument that is
        returned unchanged does not count, and of one that is only sliced the slices count.
        """
        known = self._known(self._entry)
        (root,) = (each for each in known.values() if each.root)
        results = [known[name] for name in root.operands] if root.op == "tuple" else [root]
        written = (each for each in results if _behind_bitcasts(each, known).op != "parameter")
        total = sum(array.unpadded for each in written for array in each.arrays if array.in_hbm)
        arguments = (each for each in known.values() if each.op == "parameter")
        return total + sum(self._read_of(each, known) for each in arguments)

    def costs(self) -> Iterator[tuple[Instruction, ProgramCost]]:
        """Yields the instructions that run, with the costs of all of their runs, to attribute them."""
        yield from self._costs(self._entry, 1)

    def _costs(self, name: str, times: int) -> Iterator[tuple[Instruction, ProgramCost]]:
        known = self._known(name)
        for each in self._computations[name]:
            if each.op == "while":
                for role in ("body", "condition"):
                    yield from self._costs(each.called[role], times * self._trips(each))
            elif each.op == "call":
                yield from self._costs(each.called["to_apply"], times)
            elif each.op == "conditional":
                yield from self._costs(self._branch(each), times)
            else:
                yield each, self._cost_of(each, known) * times

    def _cost(self, name: str) -> ProgramCost:
        known = self._known(name)
        return sum((self._cost_of(each, known) for each in self._computations[name]), ProgramCost())

    def _known(self, name: str) -> dict[str, Instruction]:
        return {each.name: each for each in self._computations[name]}

    def _cost_of(self, each: Instruction, known: Mapping[str, Instruction]) -> ProgramCost:
        if each.op in _FREE or each.op.endswith("-done") or each.target in _FREE_TARGETS:
            return ProgramCost()
        if each.op == "while":
            return (self._cost(each.called["body"]) + self._cost(each.called["condition"])) * self._trips(
                each
            )
        if each.op == "call":
            return self._cost(each.called["to_apply"])
        if each.op == "conditional":
            return self._cost(self._branch(each))
        found = _CYCLES.search(each.rest)
        cost = ProgramCost(self._traffic(each, known), float(found[1]) if found else 0.0)
        return cost + self._computed(each, known, has_cycles=bool(found))

    def _branch(self, each: Instruction) -> str:
        """Returns the name of the branch of a conditional with the most traffic."""
        return max(each.branches, key=lambda name: self._cost(name).hbm_bytes)

    def _computed(
        self, each: Instruction, known: Mapping[str, Instruction], *, has_cycles: bool
    ) -> ProgramCost:
        """Returns the FLOPs and the exchange of an instruction, and our estimate of a kernel's cycles."""
        if each.op in _PRODUCTS:
            operands = [known[name].arrays[0] for name in each.operands]
            flops = product_flops(each, *operands)
            return ProgramCost(flops=flops, integer_flops=flops * is_integer(operands))
        if each.op == "custom-call":
            return self._kernel(each, has_cycles=has_cycles)
        if is_transfer(each):
            return ProgramCost(
                without_cycles=int(not has_cycles),
                transfers=int(not has_cycles),
                exchanged=sent_bytes(each),
                exchanged_slices=sent_to_slices(each, self._slices),
            )
        inside = self._of_body(each.called["calls"]) if "calls" in each.called else ProgramCost()
        if "all-reduce-scatter" in each.rest or "all-reduce-scatter" in each.name:
            # The compiler's name of a sum of which each chip keeps a part: half of an all-reduce is sent.
            return dataclasses.replace(inside, exchanged=inside.exchanged / 2)
        return inside

    def _of_body(self, name: str) -> ProgramCost:
        """Returns the FLOPs and the exchange inside of a fusion."""
        if name not in self._inside:
            known = self._known(name)
            costs = (
                self._computed(each, known, has_cycles=True)
                for each in known.values()
                if not self._continues(each, name)
            )
            self._inside[name] = sum(costs, ProgramCost())
        return self._inside[name]

    def _continues(self, each: Instruction, body: str) -> bool:
        """Returns True for an exchange inside of a fusion that another fusion has started."""
        channel = channel_of(each)
        return channel is not None and self._starts.get(channel, body) != body

    def _kernel(self, each: Instruction, *, has_cycles: bool) -> ProgramCost:
        declared = _DECLARED.search(each.rest)
        if declared is None:
            return ProgramCost(without_cycles=int(not has_cycles))
        fields = {name: float(value) for name, value in _FIELD.findall(declared[1])}
        flops, moved = fields.get("flops", 0.0), fields.get("bytes_accessed", 0.0)
        if has_cycles:
            return ProgramCost(flops=flops)
        operations = flops / KERNEL_FLOPS + fields.get("transcendentals", 0.0) / KERNEL_TRANSCENDENTALS
        cycles = max(operations / self._chip.cores, moved / self._chip.bandwidth * self._chip.clock)
        return ProgramCost(kernel_cycles=cycles, kernels=1, flops=flops)

    def _trips(self, loop: Instruction) -> int:
        """Returns how often a loop runs: its counter starts at 0 and is compared with a constant."""
        if found := _TRIPS.search(loop.rest):
            return int(found[1])
        condition = self._computations[loop.called["condition"]]
        constants = {each.name: each.number for each in condition if each.op == "constant"}
        root = next(each for each in condition if each.root)
        limits = [limit for name in root.operands if (limit := constants.get(name)) is not None]
        if len(limits) != 1:
            raise ValueError(f"the loop {loop.name} runs an unknown number of times: {root.rest[:80]}")
        return limits[0]

    def _traffic(self, each: Instruction, known: Mapping[str, Instruction]) -> float:
        """Returns the bytes that an instruction reads from and writes to the high-bandwidth memory."""
        operands = [known[name] for name in dict.fromkeys(each.operands) if name in known]
        if each.op == "copy-start":
            return operands[0].hbm_bytes + sum(array.bytes for array in each.arrays[:1] if array.in_hbm)
        if each.op in ("slice-start", "async-start"):
            return self._started(each, operands)
        if each.op in _SLICES:
            return 2 * each.hbm_bytes if operands and operands[0].hbm_bytes else each.hbm_bytes
        if each.op == "dynamic-update-slice":
            update = sum(array.bytes for array in operands[1].arrays)
            return operands[1].hbm_bytes + update * bool(each.hbm_bytes)
        if each.op == "fusion":
            return self._fused(each, known)
        return each.hbm_bytes + sum(operand.hbm_bytes for operand in operands)

    def _started(self, each: Instruction, operands: list[Instruction]) -> float:
        """Returns the traffic of an asynchronous slice or computation, which moves its smallest array."""
        sizes = [array for array in each.arrays if array.bytes > 1024]
        if not sizes:
            return 0.0
        moved = min(sizes, key=lambda array: array.bytes)
        return moved.bytes * (bool(operands and operands[0].hbm_bytes) + moved.in_hbm)

    def _fused(self, each: Instruction, known: Mapping[str, Instruction]) -> float:
        body = each.called["calls"]
        updated, written = self._written(each, body)
        total = written
        for place, name in enumerate(each.operands):
            operand = known.get(name)
            if operand is not None and operand.hbm_bytes and place not in updated:
                total += min(operand.hbm_bytes, self._read(body, place))
        return total

    def _read_of(self, argument: Instruction, known: Mapping[str, Instruction]) -> float:
        """Returns the bytes of an argument of the program that it reads at least once, without padding."""
        size, total = sum(array.unpadded for array in argument.arrays), 0.0
        for each in known.values():
            if argument.name not in each.operands or (each.root and each.op == "tuple"):
                continue
            if each.op == "bitcast":
                total += self._read_of(dataclasses.replace(each, arrays=argument.arrays), known)
            elif each.op == "fusion":
                total += self._read(each.called["calls"], each.operands.index(argument.name))
            elif each.op in _SLICES and each.operands[0] == argument.name:
                total += sum(array.unpadded for array in each.arrays)
            elif each.op == "slice-start":
                total += min(array.unpadded for array in each.arrays if array.shape)
            elif each.op != "dynamic-update-slice" or each.operands[0] != argument.name:
                return size
        return min(size, total)

    def _read(self, body: str, place: int) -> float:
        """Returns the bytes of a parameter that a fusion reads: those of slices, if it only slices it."""
        total, names = 0.0, {_parameter(self._computations[body], place)}
        for inner in self._computations[body]:
            if not names.intersection(inner.operands) or self._continues(inner, body):
                continue
            if inner.root and inner.op == "tuple":
                continue  # A result that is a parameter, see `_written`.
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
        by_name = self._known(body)
        root = next(inner for inner in by_name.values() if inner.root)
        passed = _behind_bitcasts(root, by_name)
        return passed.op == "parameter" and passed.number in places

    def _written(self, fusion: Instruction, body: str) -> tuple[set[int], float]:
        """Returns the positions of operands that a fusion updates in place, and the bytes that it writes."""
        by_name = self._known(body)
        root = next(inner for inner in by_name.values() if inner.root)
        results = [by_name[each] for each in root.operands] if root.op == "tuple" else [root]
        if len(results) != len(fusion.arrays):
            return set(), fusion.hbm_bytes
        places: set[int] = set()
        total = 0.0
        for result, array in zip(results, fusion.arrays, strict=True):
            made = _behind_bitcasts(result, by_name)
            if made.op == "dynamic-update-slice":
                target = _behind_bitcasts(by_name[made.operands[0]], by_name)
                if target.op == "parameter" and target.number is not None:
                    places.add(target.number)
                total += sum(each.bytes for each in by_name[made.operands[1]].arrays) * array.in_hbm
            elif made.op == "parameter" and _ALIASED in fusion.rest:
                places.add(made.number or 0)
            elif not self._continues(made, body):
                total += array.bytes * array.in_hbm
        return places, total


def _parameter(body: list[Instruction], place: int) -> str:
    """Returns the name of the parameter at a position."""
    return next((each.name for each in body if each.op == "parameter" and each.number == place), "")


def _behind_bitcasts(each: Instruction, by_name: Mapping[str, Instruction]) -> Instruction:
    while each.op == "bitcast":
        each = by_name[each.operands[0]]
    return each
