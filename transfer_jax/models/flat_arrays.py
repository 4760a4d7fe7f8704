"""The arrays of a model as flat dictionaries, with functions from a model and back.

The keys are paths such as `backbone/blocks.3/expand/conv/kernel`. Labels, optimizers, checkpoints and freeze
checks use these dictionaries, and are therefore ordinary trees.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.backbone import Classifier

Arrays = dict[str, jax.Array]
"""The arrays of a model by path."""


def split(model: Classifier) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Splits a model into its static definition, its parameters and its running statistics.

    Args:
        model: The model; it is not changed.

    Returns:
        The definition, the parameters by path, and the running statistics by path.
    """
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, _flatten(params), _flatten(stats)


def merge(graphdef: nnx.GraphDef, arrays: Mapping[str, jax.Array]) -> Classifier:
    """Returns a model from its definition and all of its arrays. The inverse of `split`."""
    return nnx.merge(graphdef, _nest(arrays), copy=True)


def update(model: Classifier, arrays: Mapping[str, jax.Array]) -> None:
    """Replaces arrays of a model in place.

    Args:
        model: The model.
        arrays: New arrays by path; the other arrays of the model stay as they are.
    """
    nnx.update(model, _nest(arrays))


def cast(arrays: Mapping[str, jax.Array], dtype: jax.typing.DTypeLike) -> Arrays:
    """Returns the parameters in the dtype of a forward pass, and the running statistics unchanged.

    Running statistics keep their dtype, because bfloat16 is too coarse for the small steps of their averages.
    """
    kinds = dtypes(arrays, dtype)
    return {path: array.astype(kinds[path]) for path, array in arrays.items()}


def dtypes(arrays: Mapping[str, jax.Array], dtype: jax.typing.DTypeLike) -> dict[str, jnp.dtype]:
    """Returns the dtype of each array in a forward pass; see `cast`."""
    return {path: array.dtype if _is_statistic(path) else jnp.dtype(dtype) for path, array in arrays.items()}


def cast_floats(tree: Any, dtype: jax.typing.DTypeLike) -> Any:
    """Returns a tree of arrays with its floating-point arrays in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def with_training(
    graphdef: nnx.GraphDef, arrays: Mapping[str, jax.Array], blocks: Iterable[str], *, norm: str
) -> nnx.GraphDef:
    """Returns the definition of a model with the named blocks in training mode; see `set_training`."""
    model = merge(graphdef, arrays)
    set_training(model, blocks, norm=norm)
    return split(model)[0]


def set_training(model: Classifier, blocks: Iterable[str], *, norm: str) -> None:
    """Sets the named blocks to training mode, and all other blocks to inference mode.

    Args:
        model: The model. Its modes change in place, its arrays do not.
        blocks: Names of blocks of the backbone, or `head`.
        norm: See `Backbone.set_training`.
    """
    blocks = tuple(blocks)
    model.eval()
    model.backbone.set_training([name for name in blocks if name != "head"], norm)
    if "head" in blocks:
        model.head.train()


def _is_statistic(path: str) -> bool:
    return path.endswith(("/mean", "/var", "/state"))


def _nest(arrays: Mapping[str, jax.Array]) -> nnx.State:
    return nnx.from_flat_state({_keys(path): value for path, value in arrays.items()})


def _keys(path: str) -> tuple[str | int, ...]:
    """Returns the NNX keys of a path; the members of a list have integers."""
    return tuple(int(part) if part.isdigit() else part for part in path.split("/"))


def _flatten(state: nnx.State) -> Arrays:
    return {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}
