"""The wall time of a run by activity, a verdict on it, and a trace of some steps."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax

from transfer_jax.distributed import processes
from transfer_jax.extras import optional
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text

FILE = workdir_files.GOODPUT
_WRITE_SECONDS = 2.0
_WARM_UP, _TRACED = 3, 10
_LARGE, _EXCHANGE = 0.2, 0.3
"""Fraction of the time, and fraction of a step for the exchange, from which on an activity is the verdict."""

PARTS = {
    "step": "compute-bound: the devices were busy; fewer trained blocks or bfloat16 make steps shorter",
    "start_up": "start-up-bound: loading took most of the other time; it matters less in longer runs",
    "compile": "compile-bound: keep JAX_COMPILATION_CACHE_DIR between runs, and set compile_ahead",
    "extract": "extraction-bound: features are computed once; use the same feature_dir for several runs",
    "wait": "input-bound: steps waited for images; raise read_processes, or cache features",
    "evaluate": "evaluation-bound: raise eval_every, or use fewer validation images",
    "checkpoint": "checkpoint-bound: raise checkpoint_seconds, or use a faster disk",
    "lost": "restart-bound: steps were repeated after kills; lower checkpoint_seconds",
    "other": "bound by hashing and writing reports; it matters less in longer phases",
}
"""The activities that time is spent on, and the verdict if one takes much of it."""
_EXCHANGED = (
    "communication-bound: gradient exchange takes most of a step; use larger batches, or train fewer blocks"
)


@dataclasses.dataclass
class Goodput:
    """The clock of a run: seconds of wall time by activity, over all sessions of the run.

    Attributes:
        seconds: Seconds by the names of `PARTS`, up to the last change of activity. `lost` is the time of
            steps that were repeated; the time between a kill and the next start is not counted.
        exchange: Fraction of a step that averaging its gradients over all devices takes, measured by itself.
    """

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    exchange: float = 0.0

    def __post_init__(self) -> None:
        self._part, self._since = "start_up", time.monotonic()
        self._written: float | None = None
        self._failed = False

    @contextlib.contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Counts the time inside the context as spent on an activity."""
        before = self._switch(part)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, part: str) -> str:
        """Starts an activity, and returns the one before."""
        now, before = time.monotonic(), self._part
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._part, self._since = part, now
        return before

    def move(self, seconds: float, before: str, after: str) -> None:
        """Counts some of the time of one activity as spent on another."""
        self.seconds[before] = self.seconds.get(before, 0.0) - seconds
        self.seconds[after] = self.seconds.get(after, 0.0) + seconds

    def since(self, start: Mapping[str, float]) -> dict[str, float]:
        """Returns the seconds by activity since an earlier reading of `seconds`."""
        return {part: self.seconds.get(part, 0.0) - start.get(part, 0.0) for part in PARTS}

    def lose(self, workdir: Path) -> None:
        """Counts the time between the last checkpoint and the last write of `goodput.json` as lost.

        `seconds` has the times of that checkpoint.
        """
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):
            written = json.loads((workdir / FILE).read_text(encoding="utf-8"))["seconds"]
            lost = sum(written.values()) - sum(self.seconds.values())
            self.seconds["lost"] = self.seconds.get("lost", 0.0) + max(lost, 0.0)

    def save(self, workdir: Path, *, now: bool = True) -> None:
        """Writes `goodput.json` if this is the first process; after a failure, which is a warning, no more.

        Args:
            workdir: The run's folder.
            now: Writes at once; if False, only when the last write is more than two seconds ago.
        """
        clock = time.monotonic()
        due = now or self._written is None or clock - self._written > _WRITE_SECONDS
        if self._failed or not processes.is_first() or not due:
            return
        self._switch(self._part)
        self._written = clock
        content = {
            "seconds": {part: round(self.seconds.get(part, 0.0), 3) for part in PARTS},
            "share": round(self.share, 4),
            "exchange": round(self.exchange, 4),
            "verdict": self.verdict,
            "alive": time.time(),
        }
        with optional(FILE, "The run continues without this file.") as attempt:
            write_text(workdir / FILE, json.dumps(content, indent=1))
        self._failed = attempt.error is not None

    @property
    def share(self) -> float:
        """The fraction of the time that was spent on training steps."""
        return self.seconds.get("step", 0.0) / max(sum(self.seconds.values()), 1e-9)

    @property
    def verdict(self) -> str:
        """The activity that bounds the run, and what to change; compiling only if nothing takes longer.

        Each program is compiled once, so a long run of the same programs is not bound by that.
        """
        total = max(sum(self.seconds.values()), 1e-9)
        others = {part: spent for part, spent in self.seconds.items() if part != "step"}
        if others.get("compile", 0.0) < max(self.seconds.values(), default=0.0):
            others.pop("compile", None)
        most = max(others, key=lambda part: others[part], default="other")
        if others.get(most, 0.0) >= _LARGE * total:
            return PARTS[most]
        return _EXCHANGED if self.exchange >= _EXCHANGE else PARTS["step"]


class Trace:
    """A trace of some steps for xprof, TensorBoard or Perfetto.

    Args:
        folder: The folder to write; None records nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._steps = 0

    def step(self) -> None:
        """Counts a step: starts the trace after the first three, and ends it ten steps later."""
        if self._folder is None:
            return
        self._steps += 1
        if self._steps == _WARM_UP:
            with optional(workdir_files.PROFILE, "The run continues without a trace.") as attempt:
                jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            if attempt.error is not None:
                self._folder = None
        if self._steps == _WARM_UP + _TRACED:
            self.end()

    def end(self) -> None:
        """Writes the trace, if one was started."""
        if self._folder is not None and self._steps >= _WARM_UP:
            self._folder = None
            with optional(workdir_files.PROFILE, "The run continues without a trace."):
                jax.profiler.stop_trace()
