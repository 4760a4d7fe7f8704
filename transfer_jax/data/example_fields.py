"""The parts of an example that training uses: its image or arrays, and its label, found by key."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.data.class_labels import plain
from transfer_jax.data.example_images import is_image
from transfer_jax.data.image_files import abridged

Key = str | int
"""A key of a dictionary, a position in a tuple, or `OUTER/INNER` in nested dictionaries."""
Field = Key | Callable[[Any], Any]
"""A key, or a function of the example."""

MASK_WORDS = ("mask", "segment", "depth", "annotation", "label")
"""Parts of names of images that belong to the image of an example."""
LABEL_NAMES = ("label", "labels", "class", "category", "target", "cls")
"""Names of labels."""


def part_of(item: Any, field: Field) -> Any:
    """Returns a part of an example.

    Args:
        item: The example: a dictionary, a named tuple, a tuple or a list.
        field: Its key, or a function of the example.

    Raises:
        ValueError: If the example has no such key; the message names its keys.
    """
    if callable(field):
        return field(item)
    if isinstance(field, str) and isinstance(item, Mapping):
        outer, _, inner = field.partition("/")
        if field in item:
            return item[field]
        if inner and outer in item:
            return part_of(item[outer], inner)
    elif isinstance(field, str) and field in getattr(item, "_fields", ()):
        return getattr(item, field)
    elif isinstance(field, int):
        positions = range(-len(item), len(item)) if _is_tuple(item) else ()
        if field in (item if isinstance(item, Mapping) else positions):
            return item[field]
    raise ValueError(f"it has no key {field!r}; {_keys_text(item)}")


def parts_by_key(item: Any) -> dict[Key, Any]:
    """Returns the parts of an example by key; nothing if it is no dictionary, tuple or list."""
    if isinstance(item, Mapping):
        return dict(item)
    if hasattr(item, "_fields"):
        return item._asdict()
    return dict(enumerate(item)) if _is_tuple(item) else {}


def find_image(item: Any) -> tuple[Field, tuple[Key, ...]]:
    """Returns the key of an example's image, and the keys of other images that could be chosen.

    It is `image`, or the only image, or the only one that is no mask by its name; a path counts only if there
    are no pixels. An example that is an image itself is taken as a whole.

    Raises:
        ValueError: If there is none, or several that are equally likely; the message names the keys.
    """
    if is_image(item):
        return _whole, ()
    images = {key: value for key, value in parts_by_key(item).items() if is_image(value)}
    images = {key: value for key, value in images.items() if not isinstance(value, str)} or images
    pictures = [key for key in images if not any(word in str(key).lower() for word in MASK_WORDS)]
    return _chosen("image", item, pictures or [*images])


def find_label(item: Any, taken: Iterable[Field] = ()) -> tuple[Field, tuple[Key, ...]]:
    """Returns the key of an example's label, and the keys of other values that could be chosen.

    It is `label`, or the only one of `LABEL_NAMES`, or the only number or text.

    Args:
        item: The example.
        taken: Fields with another use.

    Raises:
        ValueError: As `find_image`.
    """
    used = [*taken]
    values = [key for key, value in parts_by_key(item).items() if key not in used and _is_label(value)]
    named = [key for key in values if str(key).lower() in LABEL_NAMES]
    return _chosen("label", item, named or values)


def label_value(value: Any, *, several: bool = False) -> Any:
    """Returns a label as a Python value; an array with one entry counts as that entry.

    Args:
        value: The label.
        several: Whether it may be a list or an array, which becomes a list.

    Raises:
        ValueError: If it has several entries, and must not.
    """
    if several and (isinstance(value, list | tuple) or getattr(value, "shape", ())):
        return [plain(each) for each in value]
    shape = tuple(getattr(value, "shape", (len(value),) if isinstance(value, list | tuple) else ()))
    if any(size != 1 for size in shape):
        raise ValueError(
            f"the label must be one number or text, got {_kind(value)}; for several labels pass "
            "task='multi_label', for numbers task='regression', of one-hot labels "
            "label=lambda item: item['target'].argmax()"
        )
    return plain(np.asarray(value).reshape(()) if shape else value)


def input_fields(inputs: Any) -> dict[str, Field]:
    """Returns the field of each array by name.

    Args:
        inputs: A key, several keys, or a dictionary from names to fields.

    Raises:
        ValueError: If there is none, or one is no key and no function.
    """
    if isinstance(inputs, Mapping):
        fields = {str(name): field for name, field in inputs.items()}
    else:
        keys = inputs if isinstance(inputs, Sequence) and not isinstance(inputs, str) else [inputs]
        fields = {str(key): key for key in keys}
    if not fields or not all(isinstance(field, str | int) or callable(field) for field in fields.values()):
        raise ValueError(
            f"inputs must be keys such as ('tokens', 'mask'), or a dictionary from names to keys, "
            f"got {inputs!r}"
        )
    return fields


def _chosen(kind: str, item: Any, likely: Sequence[Key]) -> tuple[Key, tuple[Key, ...]]:
    """Returns the key that is called as its kind, or the only one, and the others."""
    if kind in likely or len(likely) == 1:
        key = kind if kind in likely else likely[0]
        return key, tuple(other for other in likely if other != key)
    if likely:
        raise ValueError(
            f"the {kind} of an example is one of {abridged([*map(str, likely)], 20)}; "
            f"choose it with {kind}={likely[0]!r}"
        )
    advice = {
        "image": "for data that are not images, name them with inputs=(...)",
        "label": f"name it with {kind}=..., a key or a function of the example, such as "
        f"{kind}=lambda item: item['target'].argmax(), or pass a list with the labels of all examples",
    }
    raise ValueError(f"an example has no {kind} that can be recognized; {_keys_text(item)}; {advice[kind]}")


def _keys_text(item: Any) -> str:
    """Returns the keys of an example with the kinds of their values, in words."""
    parts = parts_by_key(item)
    if not parts:
        return f"it is {_kind(item)}, not a dictionary or a tuple"
    shown = [f"{key!r} ({_kind(value)})" for key, value in [*parts.items()][:20]]
    return f"its keys are {', '.join(shown)}"


def _kind(value: Any) -> str:
    """Returns the type of a value, with the shape of an array."""
    shape = getattr(value, "shape", None)
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__ + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def _is_label(value: Any) -> bool:
    """Returns True for a whole number, a boolean or a text that is no image."""
    if isinstance(value, str | bytes):
        return not is_image(value)
    shape, dtype = getattr(value, "shape", None), str(getattr(value, "dtype", ""))
    if shape is not None:
        return all(size == 1 for size in shape) and any(kind in dtype for kind in ("int", "bool", "<U"))
    return isinstance(value, int)


def _is_tuple(item: Any) -> bool:
    return isinstance(item, tuple | list)


def _whole(item: Any) -> Any:
    """Returns the example itself."""
    return item
