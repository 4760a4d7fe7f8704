"""Flax models as pure functions of parameters, state, batch and random key, for `split_frozen`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx


class ModelFunction(NamedTuple):
    """A model as a pure function, with its arrays.

    Attributes:
        function: `function(params, state, batch, key)`, which returns `(outputs, new_state)`.
        params: The parameters, in nested dictionaries.
        state: All other arrays, such as running statistics and random counters.
    """

    function: Callable[..., Any]
    params: Any
    state: Any


def nnx_function(model: nnx.Module, *inputs: str) -> ModelFunction:
    """Returns a Flax NNX model as a function.

    Modes such as `model.eval()` are those that the model has now. Switch frozen blocks to inference mode
    first.

    Example:
        >>> model.eval()
        >>> function, params, state = nnx_function(model)
        >>> logits, _ = function(params, state, {"image": images}, None)

    Args:
        model: The model; it is not changed.
        *inputs: Keys of the batch that the model is called with, in order; `image` if none are given.

    Returns:
        The function, the parameters (`nnx.Param`), and all other variables. A random key restarts the model's
        random streams from it.
    """
    names = inputs or ("image",)
    graphdef, params, state = nnx.split(model, nnx.Param, ...)

    def function(params: Any, state: Any, batch: Mapping[str, Any], key: Any) -> Any:
        merged = nnx.merge(graphdef, nnx.restore_int_paths(params), nnx.restore_int_paths(state), copy=True)
        if key is not None:
            _reseed(merged, key)
        outputs = merged(*(batch[name] for name in names))
        _, _, after = nnx.split(merged, nnx.Param, ...)
        return outputs, nnx.to_pure_dict(after)

    return ModelFunction(function, nnx.to_pure_dict(params), nnx.to_pure_dict(state))


def _reseed(model: nnx.Module, key: jax.Array) -> None:
    """Sets the keys of all random streams of a model."""
    variables = [each for _, each in nnx.iter_graph(model) if isinstance(each, nnx.RngKey)]
    for number, variable in enumerate(variables):
        variable.set_value(jax.random.fold_in(key, number))


def linen_function(module: Any, variables: Mapping[str, Any], *inputs: str, **settings: Any) -> ModelFunction:
    """Returns a Flax Linen module as a function.

    Example:
        >>> function, params, state = linen_function(module, variables, "image", train=False)
        >>> logits, _ = function(params, state, {"image": images}, None)

    Args:
        module: The module.
        variables: Its variables, as `module.init` returns them: `params`, and others such as `batch_stats`.
        *inputs: Keys of the batch that the module is called with, in order; `image` if none are given.
        **settings: Keyword arguments of each call, such as `train=False`.

    Returns:
        The function, the parameters, and all other collections. The random key is that of `dropout`.
    """
    names = inputs or ("image",)
    state = {name: collection for name, collection in variables.items() if name != "params"}

    def function(params: Any, state: Any, batch: Mapping[str, Any], key: Any) -> Any:
        outputs, changed = module.apply(
            {"params": params, **state},
            *(batch[name] for name in names),
            rngs=None if key is None else {"dropout": key},
            mutable=[*state],
            **settings,
        )
        return outputs, {**state, **changed}

    return ModelFunction(function, variables["params"], state)
