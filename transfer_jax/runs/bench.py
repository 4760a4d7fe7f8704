"""The speed of training steps on the devices of this machine: a row for each network, selector and batch."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.config.compute_config import Precision, PrefixPrecision
from transfer_jax.data import from_arrays
from transfer_jax.distributed.sharding import Strategy
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.planning.peaks import Peak, peak_of
from transfer_jax.planning.reading_speed import reading_speed
from transfer_jax.planning.step_timing import time_step
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.training.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchRow:
    """The speed of one training step.

    Attributes:
        model: Name of the network.
        trains: Selector of what trains.
        boundary: The block whose cached features the step trains on; None for images.
        batch_size: Images of a step, on all devices together.
        images_per_second: Images per second of steps that never wait for images.
        step_seconds: Median of the seconds of a step.
        spread_seconds: Half of the difference between the first and the third quartile.
        steps: Number of steps that were timed.
        compile_seconds: Seconds to trace and compile the step.
        flops: FLOPs of a step: two for each multiply-add of its convolutions and matrix products.
        mfu: Fraction of the peak of all devices that the step reaches (model FLOPs utilization).
        peak_bytes: Memory of a device that the step needs, as XLA plans it; None if unknown.
        images_read: Images per second that the threads and processes of a run read; None without images, and
            for cached features.
        error: The reason why there are no figures; empty for a step that ran.
    """

    model: str
    trains: str
    boundary: str | None
    batch_size: int
    images_per_second: float = math.nan
    step_seconds: float = math.nan
    spread_seconds: float = math.nan
    steps: int = 0
    compile_seconds: float = math.nan
    flops: float = math.nan
    mfu: float = math.nan
    peak_bytes: int | None = None
    images_read: float | None = None
    error: str = ""

    @property
    def input_bound(self) -> bool | None:
        """True if reading is slower than the steps; None if the speed of reading was not measured."""
        return None if self.images_read is None else self.images_read < self.images_per_second

    def to_json(self) -> dict[str, Any]:
        """Returns the fields and `input_bound` as JSON values; figures that are missing are None."""
        fields = {**dataclasses.asdict(self), "input_bound": self.input_bound}
        missing = [name for name, value in fields.items() if isinstance(value, float) and math.isnan(value)]
        return {**fields, **dict.fromkeys(missing)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """The steps to time.

    Attributes:
        models: Names of networks.
        trains: Selectors of what trains.
        batch_sizes: Images of a step, on all devices together.
        cached: Whether to time the steps on cached features too, where something below is frozen.
        precision: Precision of the steps.
        prefix_precision: Precision of the frozen blocks below the trainable ones.
        image_size: Side of the images in pixels; None takes the network's own.
        classes: Number of classes.
        images: Images whose reading is timed, as in `train --images`; None for none.
        seconds: Seconds of steps to time in each row.
    """

    models: tuple[str, ...]
    trains: tuple[str, ...] = ("head", "top(2)", "all_()")
    batch_sizes: tuple[int, ...] = (32,)
    cached: bool = False
    precision: Precision = "float32"
    prefix_precision: PrefixPrecision = "auto"
    image_size: int | None = None
    classes: int = 1000
    images: str | None = None
    seconds: float = 2.0

    def __post_init__(self) -> None:
        for name in ("models", "trains", "batch_sizes"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one")
        if min(self.batch_sizes) < 1:
            raise ValueError(f"batch_sizes must be at least 1, got {min(self.batch_sizes)}")
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, got {self.classes}")
        if self.seconds <= 0:
            raise ValueError(f"seconds must be above 0, got {self.seconds:g}")

    def peak(self) -> Peak:
        """Returns the peak of a device in the precision of the steps."""
        return peak_of(jax.devices()[0], self.precision)

    def rows(self, peak: Peak, progress: Progress | None = None) -> Iterator[BenchRow]:
        """Times the steps, and yields a row for each as soon as it is known.

        The networks have random weights. A step that does not fit into memory has a row with its error.

        Args:
            peak: The peak of a device.
            progress: Receives the number of rows; None shows none.

        Raises:
            ValueError: If there is no such network or selector, or if a batch cannot be split over the
                devices. It is raised before anything is timed.
        """
        progress = progress or Silent()
        cases = {model: self._phases(model) for model in self.models}
        total = len(self.batch_sizes) * sum(map(len, cases.values()))
        progress.start("timing steps", total)
        for model, phases in cases.items():
            run = self._run(model, phases)
            read = None if self.images is None else self._images_read(model)
            for phase in phases:
                for size in self.batch_sizes:
                    yield _row(run, phase, size, read, self.seconds, peak)
                    progress.advance(1)
            del run
        progress.finish()

    def _config(self, model: str, phases: Sequence[Phase]) -> TrainConfig:
        return TrainConfig(
            images=self.images or "none",
            model=model,
            weights="none",
            image_size=self.image_size,
            precision=self.precision,
            prefix_precision=self.prefix_precision,
            batch_size=max(self.batch_sizes),
            schedule=Schedule(tuple(phases)),
            feature_gigabytes=1e9,
        )

    def _resolved(self, model: str, phases: Sequence[Phase]) -> Any:
        """Returns the run of a network on images that are never read."""
        labels = np.arange(4 * max(*self.batch_sizes, self.classes)) % self.classes
        names = tuple(map(str, range(self.classes)))
        dataset = from_arrays(np.zeros((len(labels), 1, 1), np.uint8), labels, names)
        return resolve(self._config(model, phases), dataset=dataset)

    def _phases(self, model: str) -> list[Phase]:
        """Returns the phases of a network: each selector on images and, where that is possible, cached."""
        phases = [_phase(trains, "off") for trains in self.trains]
        resolved, found = self._resolved(model, phases), []
        for parts in resolved.phases:
            found.append(parts.phase)
            if self.cached and parts.boundary is not None:
                found.append(_phase(parts.phase.train, "require"))
        strategy = Strategy.of("auto")
        for size in self.batch_sizes:
            strategy.check_rows(size)
        return found

    def _run(self, model: str, phases: Sequence[Phase]) -> Run:
        return load_network(self._resolved(model, phases), Path())

    def _images_read(self, model: str) -> float:
        """Returns the images per second that are read for a network."""
        phase = _phase("head", "off")
        one = Strategy.of("mesh", devices=jax.local_devices()[:1])
        return reading_speed(resolve(self._config(model, [phase])).abstract_run(one), phase)


def _phase(trains: str, cache: Any) -> Phase:
    name = f"{trains}, cached" if cache == "require" else trains
    return Phase(name=name, train=trains, epochs=1, learning_rate=1e-3, cache=cache)


def _row(run: Run, phase: Phase, batch_size: int, read: float | None, seconds: float, peak: Peak) -> BenchRow:
    """Times one step."""
    config = dataclasses.replace(run.config, schedule=Schedule((phase,)), batch_size=batch_size)
    run = dataclasses.replace(run, config=config)
    parts = run.parts(0)
    boundary = run.caching(phase, parts.boundary).boundary
    row = BenchRow(model=config.model, trains=phase.train, boundary=boundary, batch_size=batch_size)
    try:
        found = time_step(run, parts, seconds)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return dataclasses.replace(row, error="out of memory")
    flops = 2.0 * found.compiled.multiply_adds
    return dataclasses.replace(
        row,
        images_per_second=batch_size / found.seconds,
        step_seconds=found.seconds,
        spread_seconds=found.spread,
        steps=found.steps,
        compile_seconds=found.compiled.seconds,
        flops=flops,
        mfu=flops / found.seconds / (peak.flops * run.strategy.count),
        peak_bytes=found.compiled.peak_bytes,
        images_read=read if boundary is None else None,
    )


@contextlib.contextmanager
def without_compilation_cache() -> Iterator[None]:
    """Turns off JAX's cache of compiled programs, so that the time to compile is measured."""
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    before = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    reset_cache()
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        reset_cache()
        jax.config.update("jax_enable_compilation_cache", before)
