"""Costs of a compiled TPU program, from its text: traffic to the memory, cycles, FLOPs, exchange.

- The traffic is that of `hbm_traffic`, for each instruction.
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
import re
from collections.abc import Iterator, Mapping

from transfer_jax.planning.chips import CHIPS, Chip
from transfer_jax.planning.exchange import is_asynchronous, is_transfer, sent_bytes, sent_to_slices
from transfer_jax.planning.hbm_traffic import HbmTraffic
from transfer_jax.planning.program_flops import is_integer, product_flops
from transfer_jax.planning.program_text import Instruction, by_name, parse_program

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
        self._traffic = HbmTraffic(self._computations, self._continues)
        self._inside: dict[str, ProgramCost] = {}
        self._starts = {
            name for name, body in self._computations.items() if any(each.target == _START for each in body)
        }

    @functools.cached_property
    def cost(self) -> ProgramCost:
        """The cost of the program."""
        return self._cost(self._entry)

    @functools.cached_property
    def compulsory_bytes(self) -> float:
        """Bytes that every program with these arguments and results reads and writes, without padding."""
        return self._traffic.compulsory(self._entry)

    def costs(self) -> Iterator[tuple[Instruction, ProgramCost]]:
        """Yields the instructions that run, with the costs of all of their runs, to attribute them."""
        yield from self._costs(self._entry, 1)

    def _costs(self, name: str, times: int) -> Iterator[tuple[Instruction, ProgramCost]]:
        known = by_name(self._computations[name])
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
        known = by_name(self._computations[name])
        return sum((self._cost_of(each, known) for each in self._computations[name]), ProgramCost())

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
        cost = ProgramCost(self._traffic.of(each, known), float(found[1]) if found else 0.0)
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
            known = by_name(self._computations[name])
            costs = (
                self._computed(each, known, has_cycles=True)
                for each in known.values()
                if not self._continues(each, name)
            )
            self._inside[name] = sum(costs, ProgramCost())
        return self._inside[name]

    def _continues(self, each: Instruction, body: str) -> bool:
        """Returns True for an exchange inside of a fusion that another fusion has started."""
        return is_asynchronous(each) and body not in self._starts

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
