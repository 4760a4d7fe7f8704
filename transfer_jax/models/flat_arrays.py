"""A model as plain data: a static definition and flat dictionaries of arrays.

Everything above the models works on these dictionaries, keyed by paths such as
`backbone/blocks.3/expand/conv/kernel`: labels, optimizers, checkpoints and proofs are then ordinary trees.
"""

from collections.abc import Iterable, Mapping

import jax
from flax import nnx

from transfer_jax.models.backbone import Classifier
from transfer_jax.models.paths import block_of as block_of

Arrays = dict[str, jax.Array]


def split(model: Classifier) -> tuple[nnx.GraphDef, Arrays, Arrays]:
    """Splits a model into its static definition, its parameters and its running statistics."""
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, _flatten(params), _flatten(stats)


def merge(graphdef: nnx.GraphDef, arrays: Mapping[str, jax.Array]) -> Classifier:
    """The model of a definition with all of its arrays; `split` turned around."""
    return nnx.merge(graphdef, _nest(arrays), copy=True)


def update(model: Classifier, arrays: Mapping[str, jax.Array]) -> None:
    """Replaces some of a model's arrays, in place."""
    nnx.update(model, _nest(arrays))


def cast(arrays: Mapping[str, jax.Array], dtype: jax.typing.DTypeLike) -> Arrays:
    """The arrays in the precision that a forward pass computes in.

    Running statistics stay as they are: bfloat16 cannot hold the small steps of their averages.
    """
    return {path: array if _is_statistic(path) else array.astype(dtype) for path, array in arrays.items()}


def with_training(
    graphdef: nnx.GraphDef, arrays: Mapping[str, jax.Array], blocks: Iterable[str], *, norm: str
) -> nnx.GraphDef:
    """The definition of the same model with the named blocks in training mode; see `set_training`."""
    model = merge(graphdef, arrays)
    set_training(model, blocks, norm=norm)
    return split(model)[0]


def set_training(model: Classifier, blocks: Iterable[str], *, norm: str) -> None:
    """Puts the named blocks into training mode and every other one into inference mode.

    Args:
        model: Changed in place; its arrays are not.
        blocks: Names of blocks of the backbone, or `head`.
        norm: `train` normalizes the named blocks by their batch and updates their running statistics;
            `frozen` keeps the statistics of the pretrained weights everywhere.
    """
    model.eval()
    for name in blocks:
        block = model.head if name == "head" else getattr(model.backbone, name)
        block.train()
        if norm == "frozen":
            block.set_attributes(nnx.BatchNorm, use_running_average=True, raise_if_not_found=False)


def _is_statistic(path: str) -> bool:
    return path.endswith(("/mean", "/var"))


def _nest(arrays: Mapping[str, jax.Array]) -> nnx.State:
    return nnx.from_flat_state({_keys(path): value for path, value in arrays.items()})


def _keys(path: str) -> tuple[str | int, ...]:
    """The keys of NNX along a path; the members of a list have numbers."""
    return tuple(int(part) if part.isdigit() else part for part in path.split("/"))


def _flatten(state: nnx.State) -> Arrays:
    return {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}
