"""Modules with adapters: subclasses of layers and blocks that compute with the rules of their adapters.

An adapted module is the module itself, as an instance of a subclass with one attribute more, `adapters`. The
paths of its own arrays therefore stay the same, and all code for NNX modules works on it unchanged.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from transfer_jax.models.adapters.block_rules import BlockRule
from transfer_jax.models.adapters.kernel_rules import KernelRule

_INPUT = "_input_of_fc1"


class AdapterArrays(nnx.Module):
    """The adapters of a module, as attributes by name."""


class Adapted:
    """The part that the classes of all adapted modules have in common.

    Attributes:
        adapters: The adapters by name.
        active_adapters: Names of the adapters in use, in the order in which they are applied.
    """

    __slots__ = ()

    adapters: AdapterArrays
    active_adapters: tuple[str, ...]

    def rules(self, kind: type) -> list[Any]:
        """Returns the adapters of a kind that are in use."""
        found = [getattr(self.adapters, name) for name in self.active_adapters]
        return [rule for rule in found if isinstance(rule, kind)]


def adapt(module: Any, name: str, rule: KernelRule | BlockRule) -> None:
    """Adds an adapter to a module in place, and puts it to use."""
    if not isinstance(module, Adapted):
        object.__setattr__(module, "__class__", _adapted_class(type(module)))
        module.adapters, module.active_adapters = AdapterArrays(), ()
    setattr(module.adapters, name, rule)
    module.active_adapters = (*module.active_adapters, name)


def without_adapter(module: nnx.Module, name: str) -> None:
    """Removes an adapter from a module in place. Without adapters, the module is of its own class again."""
    assert isinstance(module, Adapted)
    delattr(module.adapters, name)
    module.active_adapters = tuple(each for each in module.active_adapters if each != name)
    if not any(isinstance(each, KernelRule | BlockRule) for each in vars(module.adapters).values()):
        del module.adapters
        del module.active_adapters
        object.__setattr__(module, "__class__", type(module).__mro__[1])


def merge_kernel(module: nnx.Module) -> None:
    """Replaces the kernel and the bias of a module by those that it computes with, and removes the rules."""
    assert isinstance(module, Adapted)
    for name in ("kernel", "bias"):
        if isinstance(own := vars(module).get(name), nnx.Variable):
            own.set_value(getattr(module, name).get_value())
    for name, rule in [*vars(module.adapters).items()]:
        if isinstance(rule, KernelRule):
            without_adapter(module, name)


@functools.cache
def _adapted_class(cls: type) -> type:
    """Returns the subclass of a class of modules whose instances have adapters."""
    members: dict[str, Any] = {
        "kernel": _weight("kernel"),
        "bias": _weight("bias"),
        "fc1": _layer("fc1", _remembering),
        "fc2": _layer("fc2", _adding),
        "__module__": __name__,
    }
    if any("__call__" in vars(each) for each in cls.__mro__):
        members["__call__"] = _call(cls)
    # The class comes first: a change of class needs the same layout in memory.
    return type(f"Adapted{cls.__name__}", (cls, Adapted), members)


def _attribute(name: str, read: Callable[[Any, Any], Any]) -> property:
    """Returns a property that reads the module's own attribute of that name through a function."""

    def get(module: Any) -> Any:
        if name not in vars(module):
            raise AttributeError(f"{type(module).__name__} has no attribute {name!r}")
        own = vars(module)[name]
        return own if own is None or "adapters" not in vars(module) else read(module, own)

    def put(module: Any, value: Any) -> None:
        vars(module)[name] = value

    return property(get, put, lambda module: vars(module).__delitem__(name))


def _weight(name: str) -> property:
    """Returns the property of a kernel or a bias, as it is after the rules of the adapters."""

    def read(module: Any, own: Any) -> Any:
        if not isinstance(own, nnx.Variable) or not (rules := module.rules(KernelRule)):
            return own
        value = own.get_value()
        for rule in rules:
            value = getattr(rule, name)(value)
        return nnx.Param(value)

    return _attribute(name, read)


class _Layer:
    """A layer of an adapted block: a function with the attributes of the layer."""

    def __init__(self, layer: Any, call: Callable[[jax.Array], jax.Array]) -> None:
        self._layer, self._call = layer, call

    def __call__(self, x: jax.Array) -> jax.Array:
        return self._call(x)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _layer(name: str, call: Callable[[Any, Any, jax.Array], jax.Array]) -> property:
    """Returns the property of a layer of a perceptron."""

    def read(module: Any, own: Any) -> Any:
        return _Layer(own, functools.partial(call, module, own)) if module.rules(BlockRule) else own

    return _attribute(name, read)


def _remembering(module: Any, layer: Any, x: jax.Array) -> jax.Array:
    vars(module)[_INPUT] = x
    return layer(x)


def _adding(module: Any, layer: Any, x: jax.Array) -> jax.Array:
    y, first = layer(x), vars(module).pop(_INPUT)
    for rule in module.rules(BlockRule):
        if (addend := rule.beside(first)) is not None:
            y = y + addend
    return y


def _call(cls: type) -> Callable[..., Any]:
    """Returns the forward pass of an adapted block."""

    def call(self: Any, x: Any, *args: Any, **options: Any) -> Any:
        rules = self.rules(BlockRule)
        for rule in rules:
            x = rule.before(x)
        x = cls.__call__(self, x, *args, **options)  # pyright: ignore[reportCallIssue]
        for rule in reversed(rules):
            x = rule.after(x)
        return x

    return call
