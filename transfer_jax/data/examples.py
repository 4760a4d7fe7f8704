"""Datasets of anything with `__len__` and `__getitem__`: dictionaries or tuples, of images or other arrays.

A batch of images has the entries `image`, uint8 `(batch, image_size, image_size, 3)`; `label` and `index`,
int32 `(batch,)`; and `weight`, float32 `(batch,)`, if there are weights.

A batch of other data has the entry `inputs` in place of `image`: a dictionary of NumPy arrays by name, each
`(batch, *shape)`. `ImageDataset.inputs` has the same names with shape and dtype of one example, without the
batch. Dtypes have at most 32 bits. For `inputs=("tokens", "mask")`:

    {"inputs": {"tokens": int32 (batch, 128), "mask": int32 (batch, 128)}, "label": …, "index": …}

`image_fetch`, `augmented_image_fetch` and `view_fetch` all return these batches; nothing is augmented.
`ordered_batches` adds `mask`, bool `(batch,)`, at the top, beside `inputs`.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.example_fields import (
    Field,
    Key,
    find_image,
    find_label,
    input_fields,
    label_value,
    part_of,
)
from transfer_jax.data.example_images import is_floating
from transfer_jax.data.example_reader import ExampleReader, content_hash
from transfer_jax.data.example_source import known_class_names, known_labels, open_source, own_fingerprint
from transfer_jax.data.image_files import abridged
from transfer_jax.data.targets import make_targets
from transfer_jax.data.thread_map import thread_map
from transfer_jax.tasks import SingleLabel

_AT_ONCE = 16
"""Number of examples that a thread reads at a time."""


def from_examples(
    source: Any,
    *,
    image: Field | None = None,
    label: Field | Any = None,
    inputs: Field | Sequence[Field] | Mapping[str, Field] | None = None,
    class_names: Sequence[str] | Mapping[Any, Any] | None = None,
    validation: Any = None,
    task: str = "auto",
    fingerprint: str | None = None,
    name: str = "example",
    progress: Callable[[int], None] | None = None,
) -> ImageDataset:
    """Returns the dataset of a source with `__len__` and `__getitem__`.

    Sources are lists, datasets of torch, grain (`MapDataset`) or Hugging Face and the like, also a
    dictionary of arrays with one entry for each example. Examples are dictionaries with any keys, or tuples.
    One is read when it is needed; several threads read at once.

    Labels are taken from a column, or from `targets` of a torch dataset, if the source has them and its
    examples have the same. Otherwise all examples are read once. This is also done to compute the
    fingerprint, unless the source has one (Hugging Face datasets) or `fingerprint` sets it.

    Example:
        >>> source = [{"photo": np.full((8, 8, 3), i, np.uint8), "kind": "ab"[i % 2]} for i in range(20)]
        >>> dataset = from_examples(source, label="kind")

    Args:
        source: The examples. The same position must always give the same example: random augmentation
            belongs into `TrainConfig.augmentation`.
        image: Key of the images, `OUTER/INNER` in nested dictionaries, a position in a tuple, or a function
            of the example; None takes `image`, or the only image. See `image_content` for what an image is.
        label: The same of the labels, which are as for `from_arrays`; or a list with the labels of all
            examples. None takes `label`, or the only number or text.
        inputs: Keys of arrays, if the examples are not images: several, or a dictionary from names to keys.
            An array has the same shape in all examples.
        class_names: As for `from_arrays`; None takes those of the source, or the sorted distinct labels.
        task: `single_label`, `multi_label`, `regression` or `ordinal`, whose labels are as for
            `make_targets`; `auto` is `single_label`.
        validation: A source of validation examples like `source`; None leaves the split to the run.
        fingerprint: A name for the content, which must change whenever an image or an array changes; part of
            the keys of feature caches and checkpoints. None computes it from the content.
        name: First word of the names of the examples, such as `example 12`.
        progress: Called with the number of examples that were read since the last call, such as `update` of
            a progress bar.

    Returns:
        The dataset. A batch of it is as in the text of `transfer_jax.data.examples`.

    Raises:
        ValueError: If a source has no length or no random access, a key is missing or ambiguous, a label
            is invalid (see `from_arrays`), an array has another shape than in the first example, or
            an example differs when it is read twice.
        BadImageError: If an example without a known label cannot be read; the message names its position.
    """
    sources = [open_source(source, "source")]
    if validation is not None:
        sources.append(open_source(validation, "validation"))
    reader = ExampleReader(sources, name, several=task in ("multi_label", "regression"))
    given = None
    if not (label is None or isinstance(label, str | int) or callable(label)):
        label, given = None, _given_labels(label, sources)
    notes = _choose(reader, image, inputs, label, labelled=given is None)
    labels = given if reader.label is None else _known_labels(sources, reader.label)
    trusted = _check_sample(reader, labels if given is None else None)
    if not trusted:
        labels = None
    if class_names is None and reader.label is not None and trusted:
        class_names = _known_names(sources, reader.label)
    known = _known_content(sources, reader, fingerprint)
    hashes = b""
    if labels is None or known is None:
        labels, hashes = _read_all(reader, labels, hashed=known is None, progress=progress)
    positions, found = make_targets(labels, task, class_names)
    names = found.names
    if len(names) < 2 and isinstance(found, SingleLabel):
        raise ValueError(f"at least two classes are needed, got {list(names)}")
    parts = (known, [len(source) for source in sources], names, sorted(reader.inputs), reader.specs)
    digest = hashlib.sha256(repr(parts).encode() + np.ascontiguousarray(positions).tobytes() + hashes)
    return ImageDataset(
        read=reader.read,
        labels=positions,
        names=reader.names,
        class_names=names,
        task=found,
        fingerprint=digest.hexdigest(),
        held_out=None if validation is None else np.arange(len(reader)) >= len(sources[0]),
        notes=notes,
        inputs=reader.specs,
    )


def _given_labels(labels: Any, sources: Sequence[Any]) -> Any:
    """Returns a list with the labels of all examples."""
    if len(sources) > 1:
        raise ValueError("a list of labels has none of the validation examples; name the key of the labels")
    if len(labels) != len(sources[0]):
        raise ValueError(f"got {len(labels):,} labels for {len(sources[0]):,} examples")
    return labels


def _choose(
    reader: ExampleReader, image: Field | None, inputs: Any, label: Field | None, *, labelled: bool
) -> tuple[str, ...]:
    """Sets the fields of a reader from those that the user named and the first example; returns notes."""
    notes = []
    item = reader.first[1]
    if inputs is not None:
        if image is not None:
            raise ValueError(f"examples have image={image!r} or inputs={inputs!r}, not both")
        reader.inputs = input_fields(inputs)
    else:
        if image is None:
            image, others = find_image(item)
            notes += _notes("image", image, others)
        reader.image = image
        if is_floating(part_of(item, image)):
            notes.append("images are floating-point: 0..1 becomes 0..255")
    if labelled:
        reader.label = label
        if label is None:
            used = [field for field in (reader.image, *reader.inputs.values()) if field is not None]
            reader.label, others = find_label(item, used)
            notes += _notes("label", reader.label, others)
    return tuple(notes)


def _notes(kind: str, field: Field, others: Sequence[Key]) -> list[str]:
    if not others:
        return []
    shown = abridged([*map(str, others)])
    return [f"the {kind} of an example is {str(field)!r}, not {shown} (choose with {kind}=...)"]


def _known_labels(sources: Sequence[Any], label: Field) -> list | None:
    """Returns the labels that the sources know; None if one knows none."""
    columns = [column for source in sources if (column := known_labels(source, label)) is not None]
    if len(columns) < len(sources):
        return None
    return [*itertools.chain(*map(_plain_labels, columns))]


def _known_names(sources: Sequence[Any], label: Field) -> tuple[str, ...] | None:
    """Returns the class names that the sources know.

    Raises:
        ValueError: If they differ.
    """
    names = {known_class_names(source, label) for source in sources}
    if len(names) > 1:
        shown = " and ".join(map(str, sorted(names, key=str)))
        raise ValueError(f"source and validation have different classes, {shown}; pass class_names")
    return names.pop()


def _plain_labels(column: Any) -> list:
    """Returns a column of labels as Python values."""
    if hasattr(column, "tolist"):
        return (column.reshape(-1) if len(column.shape) == 2 and column.shape[1] == 1 else column).tolist()
    return [label_value(value, several=True) for value in column]


def _known_content(sources: Sequence[Any], reader: ExampleReader, fingerprint: str | None) -> str | None:
    """Returns a text that stands for the content: a fingerprint and the keys; None if it must be read."""
    own = [own_fingerprint(source) for source in sources]
    fields = [reader.image, reader.label, *reader.inputs.values()]
    if fingerprint is not None:
        return repr((fingerprint, [field for field in fields if not callable(field)]))
    return None if None in own or any(map(callable, fields)) else repr((own, fields))


def _check_sample(reader: ExampleReader, labels: Sequence[Any] | None) -> bool:
    """Reads a few examples twice.

    Returns:
        True if their labels are among `labels`, which may be None.

    Raises:
        ValueError: If an example differs at the second time.
        BadImageError: If none can be read.
    """
    same, errors = True, []
    known, first = reader.first
    for index in reader.sample:
        try:
            items = [first if index == known else reader.item(index), reader.item(index)]
            hashes = [content_hash(reader.content_of(item, index)) for item in items]
        except BadImageError as error:
            errors.append(error)
            continue
        found = [reader.label_of(item, index) for item in items] if reader.label is not None else [None] * 2
        if hashes[0] != hashes[1] or found[0] != found[1]:
            raise ValueError(
                f"{reader.names[index]} differs when it is read twice, so features, validation scores and "
                "resumed runs would be wrong. Take random augmentation out of the source (TrainConfig."
                "augmentation has crops, flips and colors)"
            )
        same = same and (labels is None or found[0] == labels[index])
    if len(errors) == len(reader.sample):
        raise errors[0]
    return same


def _read_all(
    reader: ExampleReader,
    labels: Sequence[Any] | None,
    *,
    hashed: bool,
    progress: Callable[[int], None] | None,
) -> tuple[Any, bytes]:
    """Reads all examples once.

    Args:
        reader: The examples.
        labels: Their labels, which are those of examples that cannot be read; None if they are not known.
        hashed: Whether to hash the contents.
        progress: Called with the number of examples that were read since the last call.

    Returns:
        The labels, and a hash of all contents; b"" without `hashed`.

    Raises:
        BadImageError: If an example cannot be read and its label is not known, or it has no label, or it has
            an array of another shape.
    """

    def read(index: int) -> tuple[Any, bytes]:
        label = None if reader.label is None or labels is None else labels[index]
        digest = b"bad"
        try:
            item = reader.item(index)
        except BadImageError as error:
            if labels is None or reader.inputs:
                raise BadImageError(f"{error}; leave it out of the source") from error
            return label, digest
        if reader.label is not None:
            label = reader.label_of(item, index)
        try:
            digest = content_hash(reader.content_of(item, index)) if hashed else b""
        except BadImageError:
            if reader.inputs:
                raise
        return label, digest

    found, hashes = [], hashlib.sha256()
    starts = range(0, len(reader), _AT_ONCE)
    parts = (range(start, min(start + _AT_ONCE, len(reader))) for start in starts)
    for part in thread_map(lambda rows: [*map(read, rows)], parts):
        for label, digest in part:
            found.append(label)
            hashes.update(digest)
        if progress is not None:
            progress(len(part))
    return labels if reader.label is None else found, hashes.digest() if hashed else b""
