"""Ctrl-C and SIGTERM, noted instead of obeyed at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it to a process that is to make room."""


@contextmanager
def stop_asked() -> Iterator[Callable[[], KeyboardInterrupt | None]]:
    """Takes note of Ctrl-C and SIGTERM instead of stopping at once; a second Ctrl-C does stop.

    Yields:
        What gives the exception to raise once it is safe to stop, or None.
    """
    asked = None

    def note(number: int, frame: Any) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = asked or (Terminated() if number == signal.SIGTERM else KeyboardInterrupt())

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` at SIGTERM, wherever it is not noted."""

    def end(number: int, frame: Any) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
