"""The largest batch of each phase that fits on a chip of a pod, with each way to recompute activations.

The memory of a step is nearly linear in the images of a batch. Two compilations give the line, and a third
one confirms the largest power of two that fits according to it.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

from transfer_jax.counted import counted
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.models.remat_names import Remat
from transfer_jax.planning.chips import CHIPS
from transfer_jax.planning.pod_cost import PodCost
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.planning.topology import pod_costs, topology_devices
from transfer_jax.report.progress import Progress

POLICIES: tuple[Remat, ...] = ("none", "dots", "block")
"""The policies that are compared, those that keep the most activations first."""
_SMALL, _LARGE, _MOST = 16, 64, 4096
"""Images of the first two compilations, and the largest batch that is tried."""


def batch_search(
    resolved: ResolvedRun,
    topology: str,
    progress: Progress,
    *,
    train: Sequence[str] = (),
    policies: Sequence[Remat] = POLICIES,
) -> Iterator[tuple[Remat, PodCost]]:
    """Yields the cost of the largest batch that fits, for each phase and policy.

    Only powers of two are tried, up to 4,096 images for each chip, and up to all training images for all
    chips. If not even one image fits, `fits` of the cost is False.

    Args:
        resolved: The run; its batch size and `remat` do not matter.
        topology: The topology of the pod or of each slice, such as `v5e:16x16`.
        progress: Receives the progress of the compilations.
        train: Selectors to compare instead of the phases; see `pod_costs`.
        policies: Values of `remat`.

    Raises:
        ValueError: If there is no such topology, or if there are too few training images for it.
        ImportError: If `libtpu` is not installed.
    """
    chips = len(topology_devices(topology, resolved.config.slices or 1)) // resolved.config.tensor
    most = min(len(resolved.train) // chips, _MOST)
    if not most:
        raise ValueError(
            f"{counted(len(resolved.train), 'training image')} cannot be divided among {chips:,} chips; "
            "choose a smaller pod, such as v5e:2x2, or more images"
        )
    memory = CHIPS[topology.partition(":")[0]].memory
    phases = resolved.config.schedule.phases
    if train:
        phases = tuple(dataclasses.replace(phases[-1], name=each, train=each) for each in train)
    for phase in phases:
        for policy in policies:
            run = resolved.with_settings(schedule=Schedule((phase,)), remat=policy)

            def cost_of(images: int, run: ResolvedRun = run) -> PodCost:
                (cost,) = pod_costs(run, topology, progress, images=images)
                return cost

            yield policy, largest_that_fits(cost_of, memory, most)


def largest_that_fits(cost_of: Callable[[int], PodCost], memory: float, most: int = _MOST) -> PodCost:
    """Returns the cost of the largest power of two of images that fits, or that of the smallest if none does.

    Args:
        cost_of: The cost of a number of images.
        memory: Bytes of the chip.
        most: The largest number of images.
    """
    largest = 2 ** math.floor(math.log2(most))
    found = cost_of(min(_SMALL, largest))
    if not found.fits:
        while not found.fits and found.images > 1:
            found = cost_of(found.images // 2)
        return found
    images = min(_LARGE, largest)
    if found.images < images and (large := cost_of(images)).fits:
        per_image = (large.memory - found.memory) / (large.images - found.images)
        fit = images + (memory - large.memory) / per_image if per_image > 0 else largest
        found, images = large, 2 ** math.floor(math.log2(min(fit, largest)))
    else:
        images //= 2
    while images > found.images:
        if (cost := cost_of(images)).fits:
            return cost
        images //= 2
    return found
