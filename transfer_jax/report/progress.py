"""The progress of long tasks: the interface that tasks report to, and the rate at which they advance."""

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """An object that tasks report their progress to; the command line shows it (`report.console.Bars`)."""

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        """Starts a task.

        Args:
            task: Name of the task.
            total: Number of its images or other items.
            done: Number of items that an earlier run has finished.
        """
        ...

    def advance(self, images: int, **values: float) -> None:
        """Reports that more items are finished.

        Args:
            images: Number of items since the last call.
            **values: Values that belong to them, such as the loss.
        """
        ...

    def finish(self) -> None:
        """Ends the task."""
        ...

    def log(self, message: str) -> None:
        """Logs a message of one line."""
        ...


class Silent:
    """A `Progress` that shows nothing."""

    def start(self, task: str, total: int, *, done: int = 0) -> None: ...
    def advance(self, images: int, **values: float) -> None: ...
    def finish(self) -> None: ...
    def log(self, message: str) -> None: ...


class Meter:
    """The rate and the remaining time of a task, measured over the last seconds.

    Items that an earlier run has finished do not count. The time before the first item counts, so that items
    which are reported together do not look faster than they were.

    Attributes:
        total: Number of items of the task.
        done: Number of finished items, including those of an earlier run.

    Args:
        total: Number of items.
        done: Number of items that an earlier run has finished.
        window: Seconds over which the rate is measured.
        clock: Returns the time in seconds.
    """

    _SHORTEST = 0.5
    """Seconds that a task takes before a rate is measured."""

    def __init__(
        self, total: int, done: int = 0, *, window: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.done = total, done
        self._before, self._window, self._clock = done, window, clock
        self._start = clock()
        self._points = deque([(self._start, done)])

    def advance(self, items: int) -> None:
        """Adds finished items."""
        self.done += items
        now = self._clock()
        self._points.append((now, self.done))
        while len(self._points) > 2 and self._points[1][0] <= now - self._window:
            self._points.popleft()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    @property
    def rate(self) -> float | None:
        """Items per second over the last seconds, or None if nothing was measured yet."""
        since, done = self._points[0]
        return self._per_second(self.done - done, self._points[-1][0] - since)

    @property
    def mean_rate(self) -> float | None:
        """Items per second since the start, or None if nothing was measured."""
        return self._per_second(self.done - self._before, self.elapsed)

    @property
    def remaining(self) -> float | None:
        """Estimated seconds until the end, or None if they are unknown."""
        rate = self.rate
        return None if rate is None else max(self.total - self.done, 0) / rate

    def _per_second(self, items: int, seconds: float) -> float | None:
        return items / seconds if items > 0 and seconds >= self._SHORTEST else None
