"""Functions with another implementation for each platform.

The implementation is chosen when a function is lowered, not when it is traced. Compiling ahead of time for
another platform therefore gives the right one.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
from jax import core, lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

Function = Callable[..., jax.Array]
"""A function of arrays and, as its last argument, of static data."""
Gradients = Callable[..., tuple[jax.Array, ...]]
"""A function of the arrays of a `Function`, the gradient of its result, and its static data."""


def by_platform(on_cpu: Function, elsewhere: Function, gradients_on_cpu: Gradients | None = None) -> Function:
    """Returns a function that runs `on_cpu` on CPUs and `elsewhere` on other platforms, with gradients.

    Args:
        on_cpu: Implementation for CPUs.
        elsewhere: Implementation for other platforms.
        gradients_on_cpu: Gradients for CPUs; None differentiates `on_cpu`.
    """
    backward_on_cpu = gradients_on_cpu or gradients_of(on_cpu)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def function(static: Hashable, *arrays: jax.Array) -> jax.Array:
        return _dispatch(on_cpu, elsewhere, arrays, static)

    def fwd(static: Hashable, *arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return function(static, *arrays), arrays

    def bwd(static: Hashable, arrays: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array, ...]:
        return _dispatch(backward_on_cpu, gradients_of(elsewhere), (*arrays, dy), static)

    function.defvjp(fwd, bwd)
    return lambda *arguments: function(arguments[-1], *arguments[:-1])


def gradients_of(function: Function) -> Gradients:
    """Returns the gradients of a function that JAX can differentiate."""

    def gradients(*arguments: Any) -> tuple[jax.Array, ...]:
        *arrays, dy, static = arguments
        return jax.vjp(lambda *arrays: function(*arrays, static), *arrays)[1](dy)

    return gradients


def _dispatch(
    on_cpu: Callable[..., Any], elsewhere: Callable[..., Any], arrays: Any, static: Hashable
) -> Any:
    cpu, default = (lambda *arrays, f=f: f(*arrays, static) for f in (on_cpu, elsewhere))
    return lax.platform_dependent(*arrays, cpu=cpu, default=default)


@dataclasses.dataclass(frozen=True)
class TpuKernel:
    """A function with a kernel of Pallas for TPUs, which XLA cannot partition.

    Programs for one device, and programs that `jax.shard_map` maps over all axes of a mesh, run the kernel.
    Other programs, in which XLA partitions arrays by itself, run the plain function, as on other platforms.

    Attributes:
        kernel: Function from arrays and static data to a sequence of arrays.
        plain: The same function in operations of XLA.
    """

    kernel: Callable[..., Sequence[jax.Array]]
    plain: Callable[..., Sequence[jax.Array]]

    def __call__(self, static: Hashable, *arrays: jax.Array) -> list[jax.Array]:
        """Applies the function to arrays."""
        return _kernel.bind(*arrays, function=self, static=static)


_kernel = Primitive("tpu_kernel")
_kernel.multiple_results = True


def _plain(*arrays: Any, function: TpuKernel, static: Hashable) -> list[jax.Array]:
    return list(function.plain(static, *arrays))


def _lower_for_tpu(ctx: Any, *operands: Any, function: TpuKernel, static: Hashable) -> Any:
    kernel = mlir.lower_fun(lambda *arrays: list(function.kernel(static, *arrays)), multiple_results=True)
    try:
        return kernel(ctx, *operands)
    except NotImplementedError as error:
        if "automatically partitioned" not in str(error):
            raise
    return mlir.lower_fun(_plain, multiple_results=True)(ctx, *operands, function=function, static=static)


def _batched(arrays: Any, axes: Any, *, function: TpuKernel, static: Hashable) -> Any:
    plain = functools.partial(_plain, function=function, static=static)
    found = jax.vmap(plain, in_axes=tuple(axes))(*arrays)  # None for arrays that are not mapped.
    return found, [0] * len(found)


def _impl(*arrays: Any, **parameters: Any) -> list[jax.Array]:
    return jax.jit(functools.partial(_kernel.bind, **parameters))(*arrays)


def _shapes(*avals: Any, **parameters: Any) -> list[Any]:
    shapes = jax.eval_shape(functools.partial(_plain, **parameters), *avals)
    return [core.ShapedArray(each.shape, each.dtype) for each in shapes]


_kernel.def_impl(_impl)
_kernel.def_abstract_eval(_shapes)
mlir.register_lowering(_kernel, mlir.lower_fun(_plain, multiple_results=True))
mlir.register_lowering(_kernel, _lower_for_tpu, platform="tpu")
batching.primitive_batchers[_kernel] = _batched
