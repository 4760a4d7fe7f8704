"""Ctrl-C and SIGTERM, noted during training instead of stopping at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it to a process that it preempts."""


@contextmanager
def stop_requested() -> Iterator[Callable[[], KeyboardInterrupt | None]]:
    """Notes Ctrl-C and SIGTERM instead of stopping at once; a second Ctrl-C does stop at once.

    Yields:
        A function that returns the exception to raise when it is safe to stop, or None.
    """
    request = None

    def note(number: int, frame: Any) -> None:
        nonlocal request
        if request and number == signal.SIGINT:
            raise KeyboardInterrupt
        request = request or (Terminated() if number == signal.SIGTERM else KeyboardInterrupt())

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` at SIGTERM inside the context, except inside `stop_requested`."""

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
