"""The wall time that a search may take: its text, its clock, and the stop of the work at its end."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

_FORM = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")
_TOLERANCE = 0.03
_TICK, _LEAST_TICK = 0.01, 0.5
"""The part of the budget, and the least seconds, between two calls of `tick`; a kill loses no more of it."""
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class OutOfTimeError(Exception):
    """The time of a search, or of one of its parts, is over."""


def budget_seconds(budget: str | float) -> float:
    """Returns a budget in seconds.

    Args:
        budget: Seconds, or a text such as `90s`, `10m`, `1h30m` or `600`.

    Raises:
        ValueError: If the text has another form, or the budget is not above 0.
    """
    found = _FORM.fullmatch(str(budget).strip())
    seconds = sum(_UNITS[unit] * float(value) for unit, value in found.groupdict("0").items()) if found else 0
    if seconds <= 0:
        raise ValueError(f"budget must be a time such as 90s, 10m or 1h30m, got {budget!r}")
    return seconds


def time_text(seconds: float) -> str:
    """Returns a time as text, such as `45 s`, `3:20 min` or `1:05 h`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


class Clock:
    """The time of a search.

    Args:
        budget: All of its seconds.
        used: Seconds that earlier processes of the same search have used.
        of_process: Whether the time of this process counts from its start, with its imports; otherwise it
            counts from now.
    """

    def __init__(self, budget: float, used: float = 0.0, *, of_process: bool = False) -> None:
        age = time.time() - psutil.Process().create_time() if of_process else 0.0
        self.budget, self._of_process = budget, of_process
        self._started = time.monotonic() - used - age

    def used(self) -> float:
        """Returns the seconds that are used."""
        return time.monotonic() - self._started

    def left(self, reserve: float = 0.0) -> float:
        """Returns the seconds that are left, apart from a reserve; 0 if there are none."""
        return max(self.budget - self.used() - reserve, 0.0)

    @contextmanager
    def watched(self, tick: Callable[[], object], over: Callable[[], object]) -> Iterator[None]:
        """Watches the work inside of the context from a thread of its own.

        If the time of the process counts from its start, the process ends when the work lasts longer than the
        budget and 3 % of it. This is for work that cannot be stopped, such as a long compilation.

        Args:
            tick: Called 100 times in the budget, or twice a second.
            over: Called before the process ends.
        """
        done = threading.Event()
        tick_seconds = max(_TICK * self.budget, _LEAST_TICK)

        def watch() -> None:
            while not done.wait(min(tick_seconds, max(self.left() + _TOLERANCE * self.budget, 0.1))):
                if self._of_process and self.used() > (1 + _TOLERANCE) * self.budget:
                    try:
                        over()
                    finally:
                        os._exit(0)
                tick()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @contextmanager
    def stop_after(self, seconds: float) -> Iterator[None]:
        """Stops the work inside of the context after some seconds, as Ctrl-C does.

        A training writes a checkpoint first. Only the main thread can be stopped; in another one, the work
        goes to its end.

        Raises:
            OutOfTimeError: If the time is over before the work is done.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        over = threading.Event()

        def stop() -> None:
            over.set()
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # As in the background of a shell.
        if ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        timer.start()
        try:
            yield
        except KeyboardInterrupt:
            if over.is_set():
                raise OutOfTimeError from None
            raise
        finally:
            timer.cancel()
            if ignored:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
