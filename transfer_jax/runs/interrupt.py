"""Ctrl-C and SIGTERM, noted during training instead of stopping at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

StopRequest = Callable[[], KeyboardInterrupt | None]
"""Returns the exception to raise when it is safe to stop; None if no stop was requested."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a scheduler sends it to a process that it preempts."""


@contextmanager
def stop_requested() -> Iterator[StopRequest]:
    """Notes Ctrl-C and SIGTERM instead of stopping at once; a second Ctrl-C does stop at once.

    Yields:
        The request, which is None until one of the signals arrives.
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


def stop_flags(request: StopRequest) -> dict[str, bool]:
    """Returns two flags: `stop` if a stop was requested, `terminate` if by SIGTERM."""
    exception = request()
    return {"stop": exception is not None, "terminate": isinstance(exception, Terminated)}


def stop_exception(terminate: bool) -> KeyboardInterrupt:
    """Returns the exception to raise if a process requested a stop, by SIGTERM or by Ctrl-C."""
    return Terminated() if terminate else KeyboardInterrupt()


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
