"""The training mode of some blocks of a Flax NNX model, the other blocks in inference mode."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from transfer_jax.models.flax_functions import nnx_function

Modes = Callable[[frozenset[str], str], Callable[..., Any]]
"""A function from the groups in training mode and `Phase.norm` to a model's function."""


def nnx_modes(model: nnx.Module, inputs: tuple[str, ...], groups: Mapping[str, str]) -> Modes:
    """Returns the function from groups in training mode to the function of an NNX model.

    Args:
        model: The model; it is not changed.
        inputs: Keys of the batch that it is called with.
        groups: The group of each parameter by path.
    """

    def function(training: frozenset[str], norm: str) -> Callable[..., Any]:
        copy = nnx.clone(model)
        copy.eval()
        for path, module in nnx.iter_modules(copy):
            if _group("/".join(map(str, path)), groups) not in training:
                continue
            module.train()
            if norm == "frozen":
                module.set_attributes(nnx.BatchNorm, use_running_average=True, raise_if_not_found=False)
        return nnx_function(copy, *inputs).function

    return function


def _group(path: str, groups: Mapping[str, str]) -> str:
    """Returns the group that a module belongs to as a whole; empty if it belongs to several, or none."""
    for group in {*groups.values()}:
        if path == group or path.startswith(f"{group}/"):
            return group
    inside = {group for parameter, group in groups.items() if parameter.startswith(f"{path}/")}
    return next(iter(inside)) if path and len(inside) == 1 else ""
