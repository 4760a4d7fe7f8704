"""The memory and the time of a training step on a chip of a pod: what was compiled, a bound, an estimate."""

import dataclasses
import math
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.planning.chips import Chip
from transfer_jax.planning.tpu_program import TpuProgram


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodCost:
    """The memory and time of a training step of one phase, on each chip.

    There are two times. `bound_seconds` is a roofline (Williams et al. 2009): no step that computes the same
    matrix products, keeps the same arrays between steps and sends the same bytes is faster on this chip.
    `estimated_seconds` is that of this program by the compiler's cycles. It assumes that transfers between
    chips and to the memory on the chip take place during computation.

    Attributes:
        name: Name of the phase.
        train: Its selector.
        boundary: The block whose cached features the phase trains on; None if it trains on images.
        chips: Number of chips of all slices.
        slices: Number of slices.
        images: Number of images for each chip and step.
        memory: Bytes of memory: parameters, optimizer state, activations.
        fits: Whether the chip has that much memory.
        arguments: Bytes that stay in memory between steps: parameters, optimizer state, the batch.
        flops: FLOPs of matrix products and convolutions of the step, two for each multiply-add.
        hbm_bytes: Bytes that the program reads from and writes to the high-bandwidth memory.
        compulsory_bytes: Bytes of its arguments, read once, and of its results, written once.
        cycles: Cycles that the compiler estimates.
        kernel_cycles: Cycles of kernels of Pallas: an estimate of ours from the cost that they declare.
        kernels: Number of kernels in `kernel_cycles`.
        transfers: Number of transfers to other chips, which have no estimate in cycles.
        unknown: Number of other instructions without an estimate: kernels and other custom calls that declare
            no cost.
        exchanged: Bytes sent to other chips of the slice.
        exchanged_slices: Bytes sent to other slices.
        compute_seconds: Lower bound of the seconds for the FLOPs.
        memory_seconds: Lower bound of the seconds for the compulsory bytes.
        exchange_seconds: Lower bound of the seconds for the exchange between chips of a slice.
        network_seconds: Lower bound of the seconds for the exchange between slices.
        estimated_seconds: Seconds of all cycles at the clock of the chip; those of the program's own traffic
            to the memory, or the bound, if they are longer.
        compile_seconds: Seconds to compile the step on this machine.
        reason: The compiler's message for a step that does not fit; else empty.
    """

    name: str
    train: str
    boundary: str | None
    chips: int
    images: int
    slices: int = 1
    memory: float = math.nan
    fits: bool = False
    arguments: float = math.nan
    flops: float = math.nan
    hbm_bytes: float = math.nan
    compulsory_bytes: float = math.nan
    cycles: float = math.nan
    kernel_cycles: float = math.nan
    kernels: int = 0
    transfers: int = 0
    unknown: int = 0
    exchanged: float = math.nan
    exchanged_slices: float = math.nan
    compute_seconds: float = math.nan
    memory_seconds: float = math.nan
    exchange_seconds: float = math.nan
    network_seconds: float = math.nan
    estimated_seconds: float = math.nan
    compile_seconds: float = math.nan
    reason: str = ""

    @property
    def bound_seconds(self) -> float:
        """The seconds that no such step can beat: the longest of four lower bounds."""
        return max(self._bounds.values())

    @property
    def bound(self) -> str:
        """The longest of `compute`, `memory`, `exchange` and `network`; empty if the step does not fit."""
        return "" if self.reason else max(self._bounds, key=lambda name: self._bounds[name])

    @property
    def left_out(self) -> str:
        """The instructions that the compiler's estimate leaves out, in words; empty if there are none."""
        found = ((self.transfers, "transfer"), (self.unknown, "custom call"))
        return ", ".join(counted(number, name) for number, name in found if number)

    @property
    def _bounds(self) -> dict[str, float]:
        return {
            "compute": self.compute_seconds,
            "memory": self.memory_seconds,
            "exchange": self.exchange_seconds,
            "network": self.network_seconds,
        }


def program_fields(text: str, chip: Chip, slices: int = 1) -> dict[str, Any]:
    """Returns the fields of `PodCost` that follow from the text of a compiled program.

    Args:
        text: The text of the optimized program, as `compiled.as_text()` returns it.
        chip: The chip that it was compiled for.
        slices: Number of slices.
    """
    program = TpuProgram(text, chip, slices)
    cost, compulsory = program.cost, program.compulsory_bytes
    cycles = cost.cycles + cost.kernel_cycles
    products = cost.flops - cost.integer_flops * (1 - 1 / chip.integer_speed)
    bounds = {
        "compute_seconds": products / chip.flops,
        "memory_seconds": compulsory / chip.bandwidth,
        "exchange_seconds": cost.exchanged / chip.link,
        "network_seconds": cost.exchanged_slices / chip.network,
    }
    return {
        **bounds,
        "flops": cost.flops,
        "hbm_bytes": cost.hbm_bytes,
        "compulsory_bytes": compulsory,
        "cycles": cost.cycles,
        "kernel_cycles": cost.kernel_cycles,
        "kernels": cost.kernels,
        "transfers": cost.transfers,
        "unknown": cost.without_cycles - cost.transfers,
        "exchanged": cost.exchanged,
        "exchanged_slices": cost.exchanged_slices,
        "estimated_seconds": max(cycles / chip.clock, cost.hbm_bytes / chip.bandwidth, *bounds.values()),
    }
