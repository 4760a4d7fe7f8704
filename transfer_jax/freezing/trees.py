"""Trees of parameters: the paths of their leaves, and their trainable and frozen parts.

A tree is anything that JAX takes: nested dictionaries and lists, `nnx.State`, an Equinox module. A path
joins the parts of `jax.tree_util.keystr` with `/`, such as `layers/0/kernel`. This module imports JAX when
it is used.
"""

from collections.abc import Callable, Mapping
from typing import Any

FROZEN = "frozen"
"""Label of a frozen parameter."""


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by path.

    Example:
        >>> leaves_by_path({"layers": [{"kernel": 1}, {"kernel": 2}]})
        {'layers/0/kernel': 1, 'layers/1/kernel': 2}
    """
    import jax

    return {_path(keys): leaf for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def map_by_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """Returns a tree of the results of a function of the path and the value of each leaf."""
    import jax

    return jax.tree_util.tree_map_with_path(lambda keys, leaf: function(_path(keys), leaf), tree)


def _path(keys: tuple[Any, ...]) -> str:
    import jax

    if keys and keys[-1] == jax.tree_util.GetAttrKey("value"):  # An array inside of an `nnx.Variable`.
        keys = keys[:-1]
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def partition(tree: Any, labels: Any) -> tuple[Any, Any]:
    """Splits a tree into its trainable and its frozen part.

    A part of a dictionary has the entries of that part only. In a part of any other tree, such as
    `nnx.State` or a list, None is in the place of each other leaf, which JAX and Optax treat as an empty
    tree.

    Example:
        >>> trainable, frozen = partition(params, labels(params, match("head")))

    Args:
        tree: A tree of parameters, or of anything else with the same paths.
        labels: The labels of the parameters: a tree with the same paths, or a dictionary by path.

    Returns:
        The trainable part and the frozen part. `combine` joins them.

    Raises:
        ValueError: If a leaf has no label.
    """
    by_path = labels if is_flat(labels) else leaves_by_path(labels)
    if is_flat(tree):
        return (
            {path: leaf for path, leaf in tree.items() if by_path[path] != FROZEN},
            {path: leaf for path, leaf in tree.items() if by_path[path] == FROZEN},
        )
    missing = [path for path in leaves_by_path(tree) if path not in by_path]
    if missing:
        raise ValueError(f"{len(missing)} leaves have no label, such as {missing[0]!r}")
    trainable = map_by_path(lambda path, leaf: None if by_path[path] == FROZEN else leaf, tree)
    frozen = map_by_path(lambda path, leaf: leaf if by_path[path] == FROZEN else None, tree)
    return _without_empty(trainable), _without_empty(frozen)


def combine(trainable: Any, frozen: Any) -> Any:
    """Joins the parts that `partition` returned.

    Args:
        trainable: The trainable part, or any other part.
        frozen: The other part.

    Raises:
        ValueError: If a leaf is in both parts.
    """
    if trainable is None or frozen is None:
        return frozen if trainable is None else trainable
    if _is_dict(trainable) and _is_dict(frozen):
        keys = [*trainable, *(key for key in frozen if key not in trainable)]
        return {key: combine(trainable.get(key), frozen.get(key)) for key in keys}
    import jax

    def joined(one: Any, other: Any) -> Any:
        if one is not None and other is not None:
            raise ValueError("the parts have a leaf in common")
        return other if one is None else one

    return jax.tree.map(joined, trainable, frozen, is_leaf=lambda leaf: leaf is None)


def _is_dict(tree: Any) -> bool:
    return type(tree) is dict


def _without_empty(tree: Any) -> Any:
    """Returns a nested dictionary without the entries that have no leaves; anything else unchanged."""
    if not _is_dict(tree):
        return tree
    kept = {key: _without_empty(each) for key, each in tree.items()}
    return {key: each for key, each in kept.items() if each is not None and not (_is_dict(each) and not each)}


def is_flat(tree: Any) -> bool:
    """Returns True for a dictionary by path, whose values are leaves."""
    nested = (Mapping, list, tuple)
    return _is_dict(tree) and not any(isinstance(value, nested) for value in tree.values())
