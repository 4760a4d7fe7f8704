"""Parameters of layers that are stacked in one array, divided so that the upper layers can train alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.freezing.trees import leaves_by_path, map_by_path

_LOWER, _UPPER = "lower", "upper"


def divide_layers(
    function: Callable[..., Any], params: Any, prefix: str, count: int
) -> tuple[Callable[..., Any], Any]:
    """Divides parameters that are stacked for a `scan` over layers at a layer.

    A label belongs to a whole array. Networks that run their layers in a `scan` have one array for all
    layers, with the layers on axis 0. The result has two arrays in its place, at the paths `…/lower` and
    `…/upper`, which get labels of their own. `split_frozen` divides the scan at the same layer.

    Example:
        >>> function, params = divide_layers(function, params, "encoder/layers", 9)
        >>> found = labels(params, match("/upper$|^head"))

    Args:
        function: As for `split_frozen`.
        params: A tree of parameters: arrays, or `jax.ShapeDtypeStruct`.
        prefix: Path of the stacked layers, such as `encoder/layers`.
        count: Number of the first layers that become `lower`.

    Returns:
        The function of the divided parameters, and the divided parameters.

    Raises:
        ValueError: If no parameter is below the path, or it has no layers on both sides of the count.
    """
    paths = [path for path in leaves_by_path(params) if path == prefix or path.startswith(f"{prefix}/")]
    if not paths:
        raise ValueError(f"no parameter is below {prefix!r}; the paths begin with {_first_parts(params)}")
    leaves = leaves_by_path(params)
    depths = {path: leaves[path].shape[0] if leaves[path].shape else 0 for path in paths}
    if len({*depths.values()}) != 1 or not 0 < count < depths[paths[0]]:
        raise ValueError(
            f"{prefix!r} has {sorted({*depths.values()})} layers; choose a count between them, got {count}"
        )

    def halves(path: str, leaf: Any) -> Any:
        if path not in depths:
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            sizes = {_LOWER: count, _UPPER: leaf.shape[0] - count}
            return {
                name: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype)
                for name, size in sizes.items()
            }
        return {_LOWER: leaf[:count], _UPPER: leaf[count:]}

    structure = jax.tree.structure(params)

    def divided(params: Any, *arguments: Any) -> Any:
        parts = structure.flatten_up_to(params)
        whole = [
            jnp.concatenate([each[_LOWER], each[_UPPER]]) if path in depths else each
            for path, each in zip(leaves, parts, strict=True)
        ]
        return function(jax.tree.unflatten(structure, whole), *arguments)

    return divided, map_by_path(halves, params)


def _first_parts(params: Any) -> str:
    return ", ".join(sorted({path.split("/")[0] for path in leaves_by_path(params)}))
