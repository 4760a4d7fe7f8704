"""Finds the parameters among all that a Flax training script saved, by the keys joined with `/`."""

from collections.abc import Iterable

from transfer_jax.weights.readers.errors import CheckpointError

_WRAPPERS = ("opt/target/", "params/params/", "params/img/", "params/", "model/")
"""What is in front of the parameters, next to an optimizer's state and the like; the first found is taken."""


def parameters(keys: Iterable[str], entry: str | None = None) -> dict[str, str]:
    """The keys of the parameters, by their names without what is in front of all of them.

    Args:
        keys: all keys of the file.
        entry: the beginning of the keys to take, such as "params/img"; None searches, "" takes all.

    Raises:
        CheckpointError: if no key begins with `entry`.
    """
    keys = list(keys)
    if entry is not None:
        prefix = f"{entry.rstrip('/')}/" if entry else ""
    else:
        prefix = next((p for p in _WRAPPERS if any(key.startswith(p) for key in keys)), "")
    found = {key.removeprefix(prefix): key for key in keys if key.startswith(prefix) and key != prefix}
    if entry is not None and not found:
        first = ", ".join(
            ascii(name[:100]) for name in list(dict.fromkeys(k.split("/")[0] for k in keys))[:8]
        )
        raise CheckpointError(f"the file has no keys below {entry!r}; they begin with {first}")
    return found
