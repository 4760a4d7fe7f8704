"""Entries of weight files: the part of a file that is read, as the prefix of its keys."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transfer_jax.weights.readers.errors import CheckpointError, SeveralStateDictsError

_SEPARATORS = "./"
_MAX_LISTED = 8
_OPTIMIZER = re.compile(
    r"optim|opt_state|scheduler|exp_avg|momentum|(^|[./])(opt|mu|nu|trace)([./]|$)", re.IGNORECASE
)


def of_optimizer(path: str) -> bool:
    """Returns whether a path is that of the state of an optimizer, which may have the keys of a network."""
    return _OPTIMIZER.search(path) is not None


def suffixes(key: str) -> Iterator[tuple[str, str]]:
    """Yields the ways to divide a key into a prefix, which ends in a separator or is empty, and the rest."""
    yield "", key
    for position, sign in enumerate(key):
        if sign in _SEPARATORS and position + 1 < len(key):
            yield key[: position + 1], key[position + 1 :]


def keys_below(keys: Iterable[str], entry: str) -> dict[str, str]:
    """Returns the keys that begin with an entry and a separator, by their names without both."""
    entry = entry.rstrip(_SEPARATORS)
    begin = len(entry) + 1 if entry else 0
    return {
        key[begin:]: key
        for key in keys
        if not entry
        or (key.startswith(entry) and key[begin - 1 : begin] in tuple(_SEPARATORS) and key[begin:])
    }


def unknown_entry(entry: str, names: Iterable[str], keys: Iterable[str]) -> CheckpointError:
    """Returns the error for an entry that a file lacks.

    Args:
        entry: The entry.
        names: The names of the sets of arrays in the file; "" for one at the top level.
        keys: The keys of the arrays at the top level, whose beginnings are entries, too.
    """
    known = dict.fromkeys(
        [*(name for name in names if name), *(re.split("[./]", key, maxsplit=1)[0] for key in keys)]
    )
    return CheckpointError(f"the file has no entry {entry!r}; choose from {listed(known)}")


def several(shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> SeveralStateDictsError:
    """Returns the error for several sets of arrays, by name and by key, of which none was chosen."""
    first = next((name for name in shapes if name), "''")
    error = SeveralStateDictsError(
        f"the checkpoint holds several state dicts: {listed(shapes)}; choose one with weights_entry, "
        f"for example --weights-entry {first}"
    )
    error.shapes = shapes
    return error


def listed(names: Iterable[Any]) -> str:
    """Returns the first few names, and the number of the others."""
    every = list(names)
    more = f" and {len(every) - _MAX_LISTED} more" if len(every) > _MAX_LISTED else ""
    return ", ".join(ascii(str(name)[:100]) for name in itertools.islice(every, _MAX_LISTED)) + more
