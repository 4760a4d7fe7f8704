"""Where the time of a run went, one plain verdict on it, and a trace for those who want to look closer."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from transfer_jax.storage import workdir_files
from transfer_jax.distributed import processes
from transfer_jax.storage.atomic_write import write_text

FILE = workdir_files.GOODPUT
_ALIVE_SECONDS = 2.0
_WARM_UP, _TRACED = 3, 10
_LARGE, _EXCHANGE = 0.2, 0.3
"""Share of the time from which on a part is worth a verdict; and share of a step that its exchange takes."""

PARTS = {
    "step": "compute-bound: the devices were at work; fewer trained blocks or bfloat16 shorten it",
    "start_up": "start-up-bound: loading took most of what was not training; longer runs make it matter less",
    "compile": "compile-bound: keep JAX_COMPILATION_CACHE_DIR between runs, and set compile_ahead",
    "extract": "extraction-bound: features are computed once; share them between runs by feature_dir",
    "wait": "input-bound: steps waited for images; raise threads, store smaller images, or cache features",
    "evaluate": "evaluation-bound: raise eval_every, or hold out fewer images",
    "checkpoint": "checkpoint-bound: raise checkpoint_seconds, or use a faster disk",
    "lost": "restart-bound: steps were taken again after kills; lower checkpoint_seconds",
    "other": "bound by hashing and writing reports; longer phases make it matter less",
}
"""What time is spent on, and what to say where that is much."""
_EXCHANGED = "communication-bound: devices talk much of a step; larger batches, or fewer trained blocks"


@dataclasses.dataclass
class Goodput:
    """Seconds of wall time by what they were spent on, over all sessions of a run.

    Attributes:
        seconds: By the names of `PARTS`. `lost` are steps that were taken again, not the time between a kill
            and the next start, which nobody saw.
        saved: When the run was saved last, in seconds since 1970; 0 if never.
        exchange: Share of a step that averaging its gradients over all devices takes, measured by itself.
    """

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    saved: float = 0.0
    exchange: float = 0.0

    def __post_init__(self) -> None:
        self._part, self._since = "start_up", time.monotonic()
        self._alive = 0.0

    @contextlib.contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Counts the time inside as spent on a part."""
        before = self._switch(part)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, part: str) -> str:
        now, before = time.monotonic(), self._part
        self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._part, self._since = part, now
        return before

    def move(self, seconds: float, before: str, after: str) -> None:
        """Counts some of the time spent on one part as spent on another."""
        self.seconds[before] = self.seconds.get(before, 0.0) - seconds
        self.seconds[after] = self.seconds.get(after, 0.0) + seconds

    def lose(self, workdir: Path) -> None:
        """Counts what was done between the last checkpoint and the last sign of life as lost."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            alive = json.loads((workdir / FILE).read_text())["alive"]
            self.seconds["lost"] = self.seconds.get("lost", 0.0) + max(alive - self.saved, 0.0)

    def save(self, workdir: Path, *, now: bool = True) -> None:
        """Writes `goodput.json`, if this is the first process; unless `now`, every few seconds only."""
        alive = time.time()
        if not processes.is_first() or not (now or alive - self._alive > _ALIVE_SECONDS):
            return
        self._switch(self._part)
        self._alive = alive
        content = {
            "seconds": {part: round(self.seconds.get(part, 0.0), 3) for part in PARTS},
            "share": round(self.share, 4),
            "exchange": round(self.exchange, 4),
            "verdict": self.verdict,
            "alive": alive,
        }
        write_text(workdir / FILE, json.dumps(content, indent=1))

    @property
    def share(self) -> float:
        """The share of the time that went into training steps."""
        return self.seconds.get("step", 0.0) / max(sum(self.seconds.values()), 1e-9)

    @property
    def verdict(self) -> str:
        """What bounds the run, and what to change."""
        total = max(sum(self.seconds.values()), 1e-9)
        others = {part: spent for part, spent in self.seconds.items() if part != "step"}
        most = max(others, key=lambda part: others[part], default="other")
        if others.get(most, 0.0) >= _LARGE * total:
            return PARTS[most]
        return _EXCHANGED if self.exchange >= _EXCHANGE else PARTS["step"]


class Trace:
    """Records some steps for xprof, TensorBoard or Perfetto.

    Args:
        folder: Where to write; None records nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._steps = 0

    def step(self) -> None:
        """To be called behind each step; the first few are left out."""
        if self._folder is None:
            return
        self._steps += 1
        if self._steps == _WARM_UP:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        if self._steps == _WARM_UP + _TRACED:
            self.end()

    def end(self) -> None:
        """Writes what was recorded."""
        if self._folder is not None and self._steps >= _WARM_UP:
            jax.profiler.stop_trace()
            self._folder = None
