"""The estimated cost of one phase, and the counts that need no measurement."""

import dataclasses
import math

from transfer_jax.features import Tier
from transfer_jax.freezing import Phase
from transfer_jax.freezing.trees import FROZEN
from transfer_jax.models.paths import block_of
from transfer_jax.training.cache_choice import Caching
from transfer_jax.training.compile import Compiled
from transfer_jax.training.kept_epoch import validation_interval
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """The estimated cost of one phase.

    Attributes:
        name: Name of the phase.
        measured: True if the phase was compiled and timed. False if its seconds are those of another phase,
            in proportion to its operations.
        boundary: The block whose cached features the phase trains on; None if it trains on images.
        reason: The reason for the choice of the boundary.
        tier: The storage of the features while the phase trains; None if it trains on images.
        cache_bytes: Disk space of the cached features, in bytes.
        rows: Number of rows of features to compute: those that no earlier phase has computed.
        break_even: Number of epochs after which the cache has saved as much as it cost; None without a cache.
        step_flops: FLOPs of a training step: two for each multiply-add of its convolutions and matrix
            products.
        step_bytes: Bytes that a step reads and writes, as counted by XLA; None if the count omits most of a
            loop, or the step was not compiled.
        peak_bytes: Bytes of memory that a step needs, as planned by XLA: arguments, results and temporary
            arrays; None if unknown, or if the step was not compiled.
        optimizer_bytes: Size of the optimizer state in bytes.
        programs: Number of programs to compile.
        compile_seconds: Seconds to compile them, without that of the validation; fewer if they are in the
            compilation cache, where the run then finds them.
        extract_seconds: Seconds to compute features.
        train_seconds: Seconds of training steps, with the wait for their input.
        images_needed: Images per second that the steps take if they never wait; None on cached features.
        images_read: Images per second that threads and processes read, see `reading_speed`; None on cached
            features.
        validations: Number of times that the validation images are scored.
        validate_seconds: Seconds of all of them.
    """

    name: str
    measured: bool
    boundary: str | None
    reason: str
    tier: Tier | None
    cache_bytes: int
    rows: int
    break_even: float | None
    step_flops: int
    step_bytes: float | None
    peak_bytes: int | None
    optimizer_bytes: int
    programs: int
    compile_seconds: float
    extract_seconds: float
    train_seconds: float
    images_needed: float | None
    images_read: float | None
    validations: int
    validate_seconds: float

    @classmethod
    def traffic(cls, step: Compiled) -> float | None:
        """Returns the `step_bytes` of a compiled step."""
        return step.bytes if (step.flops or 0) > 1.9 * step.multiply_adds else None


def new_rows(run: Run, caching: Caching, phases: list[PhaseSplit], computed: set[tuple]) -> int:
    """Returns the number of rows that the last of the phases must compute, and adds them to `computed`."""
    if caching.boundary is None:
        return 0
    parts = phases[-1]
    below = run.block_names[: run.block_names.index(caching.boundary) + 1]
    changed = tuple(
        each.index
        for each in phases[:-1]
        if any(label != FROZEN and block_of(path) in below for path, label in each.labels.items())
    )
    varied = (parts.phase.views, parts.index) if parts.phase.augment else None
    validation = len(run.evaluation)
    rows = 0
    for images, count in ((("train", varied), caching.rows - validation), (("validation",), validation)):
        key = (caching.boundary, changed, *images)
        if key not in computed:
            computed.add(key)
            rows += count
    return rows


def number_of_validations(run: Run, phase: Phase) -> int:
    """Returns how often a phase scores the validation images, at its end and in between."""
    interval = validation_interval(run.config, phase, len(run.evaluation))
    return math.ceil(phase.epochs / interval) if interval else 1
