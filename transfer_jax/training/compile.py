"""Turns pure functions into compiled ones, ahead of time, and says what that took."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function for arguments of one shape.

    Attributes:
        run: The function.
        seconds: Time to trace and compile it.
        flops: Floating-point operations of one call, as XLA counts them; None where it does not.
    """

    run: Callable[..., Any]
    seconds: float
    flops: float | None

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)


def compile_function(function: Callable[..., Any], *args: Any, donate: Sequence[int] = ()) -> Compiled:
    """Compiles a pure function by `jax.jit` for arguments like `args`.

    Args:
        function: The function.
        *args: Arrays, or their shapes.
        donate: Positions of the arguments whose memory the results may reuse.
    """
    started = time.perf_counter()
    run = jax.jit(function, donate_argnums=donate).lower(*args).compile()
    seconds = time.perf_counter() - started
    analysis = run.cost_analysis() or {}
    return Compiled(run, seconds, analysis.get("flops"))
