"""Memory and time of a schedule's steps on each chip of a TPU pod, from the TPU compiler, without a TPU.

Each phase's training step is compiled for the pod ahead of time, which needs the package `libtpu`; nothing
runs. The time of a step is a lower bound, a roofline over the chip's published peaks (Williams et al. 2009).
The difference between it and the measured time depends on the network.
"""

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from transfer_jax.distributed.sharding import Strategy
from transfer_jax.extras import require
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.quiet_libtpu import quiet_libtpu
from transfer_jax.report.progress import Progress
from transfer_jax.training.background_compile import compiled_step
from transfer_jax.training.compile import Compiled


@dataclasses.dataclass(frozen=True)
class Chip:
    """The published peaks of one chip.

    Attributes:
        flops: FLOPs per second in bfloat16.
        memory: Bytes of high-bandwidth memory.
        bandwidth: Bytes per second between the memory and the chip.
        link: Bytes per second to other chips, in one direction, over all links.
        network: Bytes per second to other slices: the bandwidth of the network of the data centre to a pod,
            divided by its chips.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 200e9, 3.125e9),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9, 6.25e9),
    "v6e": Chip(918e12, 32e9, 1638e9, 400e9, 12.5e9),
}
"""Source: docs.cloud.google.com/tpu/docs/v5e, v5p-training and v6e, "key specifications".

For v5p, `network` is a quarter of the 200 Gbit/s of a host.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PodCost:
    """The memory and time of a training step of one phase, on each chip.

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
        flops: FLOPs of the step.
        bytes: Bytes read from and written to the memory.
        exchanged: Bytes sent to other chips of the slice.
        exchanged_slices: Bytes sent to other slices.
        compute_seconds: Lower bound of the seconds for the FLOPs.
        memory_seconds: Lower bound of the seconds for reading and writing the memory.
        exchange_seconds: Lower bound of the seconds for the exchange between chips of a slice.
        network_seconds: Lower bound of the seconds for the exchange between slices.
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
    bytes: float = math.nan
    exchanged: float = math.nan
    exchanged_slices: float = math.nan
    compute_seconds: float = math.nan
    memory_seconds: float = math.nan
    exchange_seconds: float = math.nan
    network_seconds: float = math.nan
    compile_seconds: float = math.nan
    reason: str = ""

    @property
    def seconds(self) -> float:
        """The lower bound of the seconds of a step: the roofline."""
        return max(self.compute_seconds, self.memory_seconds, self.exchange_seconds, self.network_seconds)

    @property
    def bound(self) -> str:
        """The slowest of `compute`, `memory`, `exchange` and `network`; empty if the step does not fit."""
        times = {
            "compute": self.compute_seconds,
            "memory": self.memory_seconds,
            "exchange": self.exchange_seconds,
            "network": self.network_seconds,
        }
        return "" if self.reason else max(times, key=lambda name: times[name])


def without_tpu() -> None:
    """Makes JAX use the CPU, and keeps `libtpu` from looking for a TPU. Call it before JAX uses devices."""
    jax.config.update("jax_platforms", "cpu")
    quiet_libtpu()
    # Without it, two processes that compile at the same time are an error.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


def pod_costs(
    resolved: ResolvedRun,
    topology: str,
    progress: Progress,
    *,
    images: int | None = None,
    train: Sequence[str] = (),
) -> Iterator[PodCost]:
    """Compiles each phase for a pod, and yields its cost.

    Args:
        resolved: The run. Its strategy is a mesh, of `slices` slices.
        topology: The topology of the pod or of each slice, such as `v5e:16x16`.
        progress: Receives the progress of the compilation.
        images: Number of images for each chip and step; None splits the config's `batch_size` over all chips.
        train: Selectors to compare instead of the phases; each takes its other settings from the last phase.

    Raises:
        ValueError: If there is no such topology, or if the batch cannot be split over it.
        ImportError: If `libtpu` is not installed.
    """
    config = resolved.config
    slices = config.slices or 1
    devices = topology_devices(topology, slices)
    chip = CHIPS[topology.partition(":")[0]]
    strategy = Strategy.of(
        "mesh",
        fsdp=config.fsdp,
        tensor=config.tensor,
        slices=slices,
        batch_norm=config.batch_norm,
        devices=devices,
    )
    if train:
        last = config.schedule.phases[-1]
        phases = tuple(dataclasses.replace(last, name=each, train=each) for each in train)
        resolved = resolved.with_settings(schedule=Schedule(phases))
    if images is not None:
        resolved = resolved.with_settings(batch_size=images * strategy.count)
    run = resolved.abstract_run(strategy)
    for parts in [run.parts(index) for index in range(len(run.config.schedule.phases))]:
        progress.start(f"compiling {parts.phase.name} for {topology}", 1)
        what = {
            "name": parts.phase.name,
            "train": parts.phase.train,
            "boundary": run.caching(parts.phase, parts.boundary).boundary,
            "chips": len(devices),
            "slices": slices,
            "images": run.config.batch_size // strategy.count,
        }
        try:
            yield _cost(compiled_step(run, parts), chip, what)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            yield PodCost(**what, reason=_first_sentence(str(error)))
        progress.finish()


def topology_devices(topology: str, slices: int = 1) -> list[Any]:
    """Returns the devices of a topology, for which programs can be compiled without a TPU.

    Args:
        topology: The topology of the pod or of each slice, such as `v5e:16x16`.
        slices: Number of slices.

    Raises:
        ValueError: If there is no such topology.
        ImportError: If `libtpu` is not installed.
    """
    kind = topology.split(":")[0]
    if kind not in CHIPS or not re.fullmatch(r"\w+:\d+(x\d+)+", topology):
        known = ", ".join(CHIPS)
        raise ValueError(f"topology must be like v5e:16x16, with one of {known}, got {topology!r}")
    require("libtpu")
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, num_slices=slices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"no topology {topology!r}: {_first_sentence(str(error))}") from error
    return list(found.devices)


def _cost(step: Compiled, chip: Chip, what: dict) -> PodCost:
    sizes, text = step.run.memory_analysis(), step.run.as_text()
    exchanged, across = exchanged_bytes(text), bytes_to_slices(text, what["slices"])
    assert step.peak_bytes is not None
    flops, moved = step.flops or math.nan, step.bytes or math.nan
    return PodCost(
        **what,
        memory=step.peak_bytes,
        fits=step.peak_bytes <= chip.memory,
        arguments=sizes.argument_size_in_bytes,
        flops=flops,
        bytes=moved,
        exchanged=exchanged,
        exchanged_slices=across,
        compute_seconds=flops / chip.flops,
        memory_seconds=moved / chip.bandwidth,
        exchange_seconds=exchanged / chip.link,
        network_seconds=across / chip.network,
        compile_seconds=step.seconds,
    )


_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
_COLLECTIVE = re.compile(
    r"= (?P<shape>\(.*?\)|\S+) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)
_TRANSFER = re.compile(r'= (?P<shape>\(.*?\)) send\(.*_xla_megascale_transfer_type="(?P<kind>\w+)"')
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_GROUPS = re.compile(
    r"replica_groups=(?:\[\d+,(?P<size>\d+)\]|\{\{(?P<first>[\d,]+)\}"
    r"|mesh\[(?P<mesh>[^\]]*)\] \{(?P<axes>[^}]*)\})"
)
_AXIS = re.compile(r"'(\w+)'=(\d+)")


def bytes_to_slices(program: str, slices: int) -> float:
    """Returns the bytes that one chip sends to other slices in a compiled program, with rings of slices.

    Args:
        program: The text of the program (HLO), whose transfers between slices are sends to the host.
        slices: Number of slices.
    """
    total = 0.0
    for line in program.splitlines():
        found = _TRANSFER.search(line)
        if found is not None:
            size = _bytes(*_ARRAY.findall(found["shape"])[0])
            share = (slices - 1) / slices
            total += {"ALL_REDUCE": 2 * size * share, "REDUCE_SCATTER": size * share}.get(found["kind"], size)
    return total


def exchanged_bytes(program: str) -> float:
    """Returns the bytes that one chip sends to others of its slice in a compiled program, with rings.

    Args:
        program: The text of the program (HLO). The body of a loop is counted once.
    """
    total = 0.0
    for line in program.splitlines():
        found = _COLLECTIVE.search(line)
        if found is None:
            continue
        sizes = [_bytes(*array) for array in _ARRAY.findall(found["shape"])]
        if found["start"] and found["kind"] != "all-reduce":
            sizes = sizes[len(sizes) // 2 :]  # The tuple has the operands first.
        size = sum(sizes)
        if found["kind"] == "collective-permute":
            total += size
            continue
        count = _group_size(line)
        share = (count - 1) / count
        total += {
            "all-reduce": 2 * size * share,
            "all-gather": size * share,
            "reduce-scatter": size * count * share,
            "all-to-all": size * share,
        }[found["kind"]]
    return total


def _bytes(kind: str, dimensions: str) -> int:
    return _BYTES.get(kind, 0) * math.prod(int(size) for size in dimensions.split(",") if size)


def _group_size(line: str) -> int:
    found = _GROUPS.search(line)
    if found is None:
        raise ValueError(f"the program has a collective without groups: {line.strip()[:200]}")
    if found["size"]:
        return int(found["size"])
    if found["first"]:
        return found["first"].count(",") + 1
    sizes = {axis: int(size) for axis, size in _AXIS.findall(found["mesh"])}
    return math.prod(sizes[axis.strip(" '")] for axis in found["axes"].split(","))


def _first_sentence(message: str) -> str:
    return " ".join(message.split())[:200]
