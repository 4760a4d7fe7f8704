"""A search for the state dict, the mapping of names to tensors, in a checkpoint of a training script."""

from collections.abc import Iterable, Iterator
from typing import Any

from transfer_jax.weights.readers.allowed_globals import TensorRef, as_tensor
from transfer_jax.weights.readers.errors import CheckpointError

WRAPPERS = (
    "state_dict",
    "state_dict_ema",
    "model_state_dict",
    "model",
    "model_ema",
    "ema",
    "params",
    "params_ema",
    "net",
    "network",
    "weights",
)
"""Keys under which scripts save the state dict, next to the optimizer's state and other data."""

_PREFIXES = ("module.", "_orig_mod.")  # added by DataParallel and by torch.compile
_MAX_DEPTH = 8
_MAX_LISTED = 8


def find_state_dict(tree: object, entry: str | None = None) -> dict[str, TensorRef]:
    """Returns the tensors of the checkpoint's state dict, without a prefix such as `module.` common to all.

    The search descends through keys in `WRAPPERS` while exactly one of them leads to tensors. Below, exactly
    one dictionary may hold tensors. Everything else in the checkpoint is ignored.

    Args:
        tree: the content of the checkpoint.
        entry: the dotted path of the dictionary to take instead of searching; "" is the top level.

    Raises:
        CheckpointError: if there is no state dict, if there are several, or if `entry` is not one of them.
    """
    if not isinstance(tree, dict):
        kind = "single tensor" if as_tensor(tree) is not None else type(tree).__name__
        raise CheckpointError(
            f"the checkpoint holds a {kind}, not a dictionary of named tensors; save the model's state_dict()"
        )
    if entry is None:
        found = list(_candidates(*_unwrap(tree)))
        if len(found) > 1:
            raise CheckpointError(_ambiguous(name for name, _ in found))
    else:
        everything = list(_candidates(tree, ""))
        found = [(name, tensors) for name, tensors in everything if name == entry]
        if everything and not found:
            names = _list_names(name for name, _ in everything)
            raise CheckpointError(f"the checkpoint has no state dict {entry!r}; choose from {names}")
    if not found:
        raise CheckpointError(
            "the checkpoint holds no dictionary of named tensors; save the model's state_dict()"
        )
    return _without_prefixes(found[0][1])


def _unwrap(tree: dict[Any, Any]) -> tuple[dict[Any, Any], str]:
    """Descends while exactly one of `WRAPPERS` leads to tensors; returns that dictionary and its path."""
    node, path = tree, ""
    for _ in range(_MAX_DEPTH):
        wrapped: dict[int, str] = {}
        for key in WRAPPERS:
            if _holds_tensors(node.get(key)):
                wrapped.setdefault(id(node[key]), key)  # one dictionary under two keys counts once
        if len(wrapped) > 1:
            raise CheckpointError(_ambiguous(_join(path, key) for key in wrapped.values()))
        if not wrapped:
            break
        (key,) = wrapped.values()
        node, path = node[key], _join(path, key)
    return node, path


def _holds_tensors(value: object) -> bool:
    return isinstance(value, dict) and next(_candidates(value, ""), None) is not None


def _candidates(tree: dict[Any, Any], path: str) -> Iterator[tuple[str, dict[str, TensorRef]]]:
    """Yields the path and the tensors of each dictionary that directly holds named tensors.

    Dictionaries in a malicious file may be shared or contain themselves, so each is visited once.
    """
    pending = [(path, tree, 0)]
    seen = {id(tree)}
    while pending:
        path, node, depth = pending.pop()
        pairs = ((key, as_tensor(value)) for key, value in node.items())
        tensors = {key: tensor for key, tensor in pairs if tensor is not None and isinstance(key, str)}
        if tensors:
            yield path, tensors
        for key, value in reversed(list(node.items())):
            if isinstance(value, dict) and id(value) not in seen and depth < _MAX_DEPTH:
                seen.add(id(value))
                pending.append((_join(path, key), value, depth + 1))


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else f"{key}"


def _ambiguous(names: Iterable[str]) -> str:
    return f"the checkpoint holds several state dicts; choose one as the entry: {_list_names(names)}"


def _list_names(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _MAX_LISTED} more" if len(every) > _MAX_LISTED else ""
    return ", ".join(ascii(name[:100]) for name in every[:_MAX_LISTED]) + more


def _without_prefixes(tensors: dict[str, TensorRef]) -> dict[str, TensorRef]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) and name != prefix for name in tensors):
            return _without_prefixes({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors
