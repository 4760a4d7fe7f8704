"""Turns pure functions into compiled ones, ahead of time, and says what that took."""

import collections
import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

_KEPT = 16
_recent: collections.OrderedDict[str, Any] = collections.OrderedDict()
"""The programs compiled last, by a hash of their text."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function for arguments of one shape.

    Attributes:
        run: The function.
        seconds: Time to trace and compile it.
        flops: Floating-point operations of one call, as XLA counts them; None where it does not.
        bytes: Bytes that one call reads and writes, as XLA counts them; None where it does not.
    """

    run: Callable[..., Any]
    seconds: float
    flops: float | None
    bytes: float | None

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)


def compile_function(function: Callable[..., Any], *args: Any, donate: Sequence[int] = ()) -> Compiled:
    """Compiles a pure function by `jax.jit` for arguments like `args`.

    A program that was compiled lately is used again, such as that of a phase which differs from an earlier
    one in its rates only, or whose cut has come back.

    Args:
        function: The function.
        *args: Arrays, or their shapes.
        donate: Positions of the arguments whose memory the results may reuse.
    """
    started = time.perf_counter()
    # Arguments that are not used stay, so that text and trees say which argument is which.
    lowered = jax.jit(function, donate_argnums=donate, keep_unused=True).lower(*args)
    text = f"{lowered.as_text()} {lowered.in_tree} {lowered.out_tree}"
    key = hashlib.sha256(text.encode()).hexdigest()
    run = _recent.pop(key, None) or lowered.compile()
    _recent[key] = run
    if len(_recent) > _KEPT:
        _recent.popitem(last=False)
    seconds = time.perf_counter() - started
    analysis = run.cost_analysis() or {}
    return Compiled(run, seconds, analysis.get("flops"), analysis.get("bytes accessed"))
