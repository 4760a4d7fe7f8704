"""Ahead-of-time compilation of pure functions, with its time and the cost of a call."""

import collections
import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from transfer_jax.distributed.sharding import ONE_DEVICE, Strategy
from transfer_jax.nn.flops import jaxpr_multiply_adds

_KEPT = 16
_recent: collections.OrderedDict[str, Any] = collections.OrderedDict()
"""The last compiled programs, by a hash of their text and their devices."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function for arguments of one shape.

    Attributes:
        run: The function that JAX compiled.
        seconds: Seconds to trace and compile it.
        multiply_adds: Multiply-adds of the convolutions and matrix products of one call.
        flops: Floating-point operations of one call as XLA counts them, with the body of a loop counted once;
            None if XLA does not report them.
        bytes: Bytes of operands and results of one call, counted in the same way. On a TPU they include those
            in the memory on the chip, and are no measure of its traffic; see `planning.tpu_program`.
        peak_bytes: Memory that one call needs for arguments, results and intermediate values, as XLA plans
            it; None if XLA does not report it.
    """

    run: Any
    seconds: float
    multiply_adds: int
    flops: float | None
    bytes: float | None
    peak_bytes: int | None

    def __call__(self, *args: Any) -> Any:
        return self.run(*args)


def compile_function(
    function: Callable[..., Any],
    *args: Any,
    donate: Sequence[int] = (),
    options: Sequence[str] = (),
    strategy: Strategy = ONE_DEVICE,
    batch: int | None = None,
) -> Compiled:
    """Compiles a pure function for arguments of the shapes of `args`.

    The last compiled programs are kept and used again, such as that of a phase that differs from an earlier
    one only in its learning rates, or that returns to an earlier frozen depth.

    Args:
        function: The function.
        *args: Arrays, or their shapes.
        donate: Positions of the arguments whose memory the results may reuse.
        options: XLA options of this program, as `name=value`.
        strategy: The devices of the program.
        batch: Position of the argument that is a batch; None if there is none.

    Raises:
        ValueError: If XLA does not support an option or its value.
    """
    started = time.perf_counter()
    jitted = strategy.jit(function, *args, batch=batch, donate=tuple(donate))
    jaxpr = jax.make_jaxpr(jitted)(*args).jaxpr
    lowered = jitted.lower(*args)
    text = f"{lowered.as_text()} {lowered.in_tree} {lowered.out_tree} {options} {_devices(strategy)}"
    key = hashlib.sha256(text.encode()).hexdigest()
    run = _recent.pop(key, None) or _compiled(lowered, options)
    _recent[key] = run
    if len(_recent) > _KEPT:
        _recent.popitem(last=False)
    seconds = time.perf_counter() - started
    analysis = run.cost_analysis() or {}
    return Compiled(
        run=run,
        seconds=seconds,
        multiply_adds=jaxpr_multiply_adds(jaxpr),
        flops=analysis.get("flops"),
        bytes=analysis.get("bytes accessed"),
        peak_bytes=_peak_bytes(run),
    )


def _devices(strategy: Strategy) -> list[tuple[str, int]]:
    """Returns the kinds and numbers of the devices, which the text of a program does not have."""
    devices = strategy.mesh.devices.flat if strategy.mesh is not None else ()
    return [(device.device_kind, device.id) for device in devices]


def _compiled(lowered: Any, options: Sequence[str]) -> Any:
    given = dict(option.split("=", 1) for option in options)
    booleans = {"true": "True", "false": "False"}  # The form that XLA expects here, unlike in XLA_FLAGS.
    try:
        return lowered.compile({name: booleans.get(value, value) for name, value in given.items()})
    except jax.errors.JaxRuntimeError as error:
        if options and "option" in str(error):
            raise ValueError(f"compiler_options={tuple(options)}: {error}") from None
        raise


def _peak_bytes(run: Any) -> int | None:
    sizes = run.memory_analysis()
    if sizes is None:
        return None
    made = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + made
