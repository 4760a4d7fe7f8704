"""Memory and time of a schedule's steps on each chip of a TPU pod, from the TPU compiler, without a TPU.

Each phase's training step is compiled for the pod ahead of time, which needs the package `libtpu`; nothing
runs. `PodCost` has a bound that no step can beat, and the compiler's estimate of the program's time.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from transfer_jax.distributed.sharding import Strategy
from transfer_jax.extras import require
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.planning.chips import CHIPS, Chip
from transfer_jax.planning.pod_cost import PodCost, program_fields
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.quiet_libtpu import quiet_libtpu
from transfer_jax.report.progress import Progress
from transfer_jax.training.background_compile import compiled_step
from transfer_jax.training.compile import Compiled


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
        shard_update=config.shard_update,
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


def _cost(step: Compiled, chip: Chip, what: dict[str, Any]) -> PodCost:
    assert step.peak_bytes is not None
    return PodCost(
        **what,
        **program_fields(step.run.as_text(), chip, what["slices"]),
        memory=step.peak_bytes,
        fits=step.peak_bytes <= chip.memory,
        arguments=step.run.memory_analysis().argument_size_in_bytes,
        compile_seconds=step.seconds,
    )


def _first_sentence(message: str) -> str:
    return " ".join(message.split())[:200]
