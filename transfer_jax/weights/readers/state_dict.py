"""A search for the state dict, the mapping of names to tensors, in a checkpoint of a training script."""

from collections.abc import Collection, Iterator, Mapping

from transfer_jax.weights.readers.allowed_globals import TensorRef, as_tensor
from transfer_jax.weights.readers.entries import keys_below, of_optimizer, several, suffixes, unknown_entry
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.inert import Inert

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

StateDict = dict[str, TensorRef | Inert]
"""Tensors by key; an inert object stands for a tensor that an unknown function builds."""

_MAX_DEPTH = 8
_NUMPY = ("multiarray._reconstruct", "numeric._frombuffer")


def find_state_dict(tree: object, entry: str | None = None) -> StateDict:
    """Returns the tensors of the checkpoint's state dict.

    The search descends through keys in `WRAPPERS` while exactly one of them leads to tensors. Below, exactly
    one dictionary may hold tensors, and no dictionary elsewhere may hold the same keys, such as an average of
    the weights. Everything else in the checkpoint is ignored. A module that was saved as a whole counts as
    its state dict.

    Args:
        tree: the content of the checkpoint.
        entry: the dotted path of the dictionary to take instead of searching, or the prefix of the keys to
            take; "" is the top level.

    Raises:
        SeveralStateDictsError: if there are several.
        CheckpointError: if there is no state dict, or if `entry` is not one of them.
    """
    found = _unique(_candidates(tree, ""))
    if not found:
        kind = "a single tensor" if as_tensor(tree) is not None else f"a {type(tree).__name__}"
        held = "no dictionary of named tensors" if isinstance(tree, dict | list | tuple) else kind
        if key := _numpy_key(tree):
            raise CheckpointError(
                f"the checkpoint holds NumPy arrays instead of tensors, such as {key[:200]!r}; save them "
                "with numpy.savez(path, **arrays), which is read, or as tensors, made by torch.from_numpy"
            )
        raise CheckpointError(f"the checkpoint holds {held}; save the model's state_dict()")
    if entry is None:
        return _only(tree, found)
    if entry in found:
        return found[entry]
    for name in sorted(found, key=len, reverse=True):  # an entry may continue with a prefix of keys
        if (not name or entry.startswith(f"{name}.")) and (
            below := keys_below(found[name], entry[len(name) :].lstrip("."))
        ):
            return {key: found[name][full] for key, full in below.items()}
    try:
        below = keys_below(only := _only(tree, found), entry)
    except CheckpointError:
        below, only = {}, {}
    if below:
        return {key: only[full] for key, full in below.items()}
    raise unknown_entry(entry, found, only or found.get("", ()))


def _numpy_key(tree: object) -> str:
    """Returns the key of a NumPy array in a checkpoint, up to one dictionary deep; "" if there is none."""
    inner = tree.values() if isinstance(tree, dict) else ()
    for node in (tree, *inner):
        for key, value in node.items() if isinstance(node, dict) else ():
            if isinstance(value, Inert) and value.name.endswith(_NUMPY):
                return str(key)
    return ""


def _only(tree: object, found: dict[str, StateDict]) -> StateDict:
    """Returns the state dict that a checkpoint is about, or raises `SeveralStateDictsError`."""
    path = _unwrap(tree, found)
    names = [name for name in found if _is_at_or_below(name, path)]
    if len(names) == 1:
        (name,) = names
        others = (other for other in found if other != name and not of_optimizer(other))
        names += [other for other in others if _has_keys_of(found[other], found[name])]
    if len(names) > 1:
        raise several({name: {key: _shape(value) for key, value in found[name].items()} for name in names})
    return found[names[0]]


def _unwrap(tree: object, found: Collection[str]) -> str:
    """Returns the path to which keys in `WRAPPERS` lead, while exactly one of them leads to tensors."""
    path = ""
    for _ in range(_MAX_DEPTH):
        node = {name for name in WRAPPERS if any(_is_at_or_below(each, _join(path, name)) for each in found)}
        if len(node) != 1:
            break
        path = _join(path, *node)
    return path


def _is_at_or_below(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(f"{path}.")


def _has_keys_of(other: Mapping[str, object], chosen: Mapping[str, object]) -> bool:
    """Returns whether a dictionary holds all keys of another one, possibly with prefixes on either side."""
    if 2 * len(other) < len(chosen):
        return False
    ends = {end for key in other for _, end in suffixes(key)}
    return all(any(end in ends for _, end in suffixes(key)) for key in chosen)


def _unique(candidates: Iterator[tuple[str, StateDict]]) -> dict[str, StateDict]:
    """Returns the candidates by path; one that repeats the tensors of another one is left out."""
    found: dict[str, StateDict] = {}
    seen: set[tuple[object, ...]] = set()
    for path, tensors in candidates:
        identity = tuple(
            (key, id(value) if isinstance(value, Inert) else value) for key, value in tensors.items()
        )
        if identity not in seen:
            seen.add(identity)
            found[path] = tensors
    return found


def _candidates(tree: object, path: str) -> Iterator[tuple[str, StateDict]]:
    """Yields the path and the tensors of each dictionary that directly holds named tensors, and each module.

    Dictionaries in a malicious file may be shared or contain themselves, so each is visited once.
    """
    pending = [(path, tree, 0)]
    seen = {id(tree)}
    while pending:
        path, node, depth = pending.pop()
        children = _children(node)
        if isinstance(node, Inert) and node.is_module:
            tensors, children = _module_tensors(node), []
        else:
            tensors = {
                key: tensor
                for key, value in (node.items() if isinstance(node, dict) else ())
                if (tensor := _as_value(value)) is not None and isinstance(key, str)
            }
        if any(not isinstance(value, Inert) for value in tensors.values()):
            yield path, tensors
        for key, value in reversed(children):
            if isinstance(value, dict | list | tuple) and id(value) not in seen and depth < _MAX_DEPTH:
                seen.add(id(value))
                pending.append((_join(path, key), value, depth + 1))


def _children(node: object) -> list[tuple[object, object]]:
    if isinstance(node, Inert):
        return [*node.items(), *node.state.items()]
    if isinstance(node, dict):
        return list(node.items())
    return list(enumerate(node)) if isinstance(node, list | tuple) else []


def _module_tensors(module: Inert) -> StateDict:
    """Returns the parameters and buffers of a module and of the modules inside it, as its `state_dict()`."""
    tensors: StateDict = {}
    pending: list[tuple[str, object]] = [("", module)]
    seen: set[int] = set()
    while pending:
        path, node = pending.pop()
        if not isinstance(node, Inert) or id(node) in seen:
            continue
        seen.add(id(node))
        parts = [node.state.get(name) for name in ("_parameters", "_buffers", "_modules")]
        scripted = parts[2] is None  # TorchScript has all of them as attributes
        members = [node.state] if scripted else [part for part in parts if isinstance(part, dict)]
        children: list[tuple[str, object]] = []
        for name, value in [item for member in members for item in member.items()]:
            if isinstance(name, str) and (tensor := as_tensor(value)) is not None:
                tensors[_join(path, name)] = tensor
            else:
                children.append((_join(path, name), value))
        pending += reversed(children)
    return tensors


def _as_value(value: object) -> TensorRef | Inert | None:
    return value if isinstance(value, Inert) and value.of_tensors else as_tensor(value)


def _shape(value: TensorRef | Inert) -> tuple[int, ...]:
    return () if isinstance(value, Inert) else value.shape


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else f"{key}"
