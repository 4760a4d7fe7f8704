"""Tar shards as WebDataset writes them: the files of an example have one name with several endings."""

import functools
import json
import os
import tarfile
from collections import Counter
from collections.abc import Sequence

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.file_endings import has_image_ending
from transfer_jax.data.image_files import abridged
from transfer_jax.data.index import IndexProgress, PartIndex, build_index, index_place
from transfer_jax.data.index.join import Joined
from transfer_jax.data.remote.range_contents import RangeContents, in_shard
from transfer_jax.data.remote.shard_labels import common_folder, label_columns, shard_dataset
from transfer_jax.storage.object_cache import ObjectCache
from transfer_jax.storage.object_listing import StoredObject, shard_files
from transfer_jax.storage.range_file import RangeFile
from transfer_jax.storage.range_reads import RangeReader
from transfer_jax.storage.remote import is_remote

_KIND = "tar shards 1"
_WINDOW, _REMOTE_WINDOW = 1 << 15, 1 << 22
"""Bytes that are read at once while the headers of a shard are read."""
_KEYS = ("label", "cls", "class", "class_id", "target", "class_name", "label_name")
"""Names of the label in a `.json`, in this order."""


def from_tar_shards(
    pattern: str | os.PathLike[str],
    *,
    label: str | None = None,
    image: str | None = None,
    classes: Sequence[str] | None = None,
    task: str = "auto",
    cache: ObjectCache | None = None,
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Reads tar shards with the layout of WebDataset, local or in object storage.

    An example has an image (`000.jpg`) and a label of the same name: `000.cls` with a number or a name, or
    `000.json` with a `label`. Shards are read once, into an index beside them; then images are read by their
    positions. Shards that are named `val` or `test` beside others are validation and test images.

    Args:
        pattern: A folder with `.tar` files, or names with `{000..127}`, `{a,b}`, `*` and `?`.
        label: Ending of the file with the label, such as `cls`, or the name of a value in the `.json`; None
            takes `cls`, or the first of `label`, `cls`, `class` and similar names.
        image: Ending of the images, such as `jpg`; None takes the first image of each example.
        classes: The classes, if labels are their names or positions; None takes the labels that occur.
        task: `single_label` or `ordinal`; `auto` is `single_label`.
        cache: The cache of images from object storage; None takes the default one.
        progress: Receives the progress of the index.

    Raises:
        ValueError: If there are no shards, one is truncated, or images have no label; or labels are not among
            the classes.
        StorageError: If object storage is not readable.
    """
    shards = shard_files(pattern, (".tar",))
    folder = common_folder(shards)
    key = {"label": label, "image": image, "classes": None if classes is None else [*classes]}
    read = functools.partial(_part, label=label, image=image)
    index = build_index(
        *(_KIND, key, [[each.place, each.size, each.tag] for each in shards], read),
        *(index_place(folder, f"{_KIND} {pattern} {key}"), progress),
        finish=functools.partial(_facts, classes=classes, place=os.fspath(pattern)),
    )
    reader = RangeReader(ObjectCache() if cache is None else cache)
    return shard_dataset(
        index, RangeContents(index, in_shard, reader), index.texts("names"), task, index.about["notes"]
    )


def _facts(joined: Joined, classes: Sequence[str] | None, place: str) -> tuple[dict, dict]:
    about, columns = label_columns(joined, classes, place)
    left_out = sum((Counter(each) for each in joined.abouts), Counter())
    notes = [f"examples left out: {count:,} {reason}" for reason, count in sorted(left_out.items())]
    return {**about, "notes": notes}, columns


def _part(part: tuple[str, int, str], label: str | None, image: str | None) -> PartIndex:
    """Returns the images in a shard."""
    stored = StoredObject(*part)
    file = RangeFile(stored, RangeReader(), _REMOTE_WINDOW if is_remote(stored.place) else _WINDOW)
    names, offsets, lengths, labels = [], [], [], []
    left_out: Counter[str] = Counter()
    unlabelled = []
    key, found_image, found_label = None, None, None

    def close() -> None:
        if key is None or (found_image is None and found_label is None):
            return
        if found_image is None:
            left_out["without an image"] += 1
        elif found_label is None:
            unlabelled.append(key)
        else:
            names.append(key)
            offsets.append(found_image[0])
            lengths.append(found_image[1])
            labels.append(found_label)

    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                vars(tar)["members"] = []  # Or else all of them stay in memory.
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not stem:
                    continue
                own = f"{folder}/{stem}" if folder else stem
                if own != key:
                    close()
                    key, found_image, found_label = own, None, None
                ending = ending.lower()
                if has_image_ending(base) if image is None else ending == image.lower():
                    found_image = found_image or (member.offset_data, member.size)
                elif found_label is None and ending in ("cls", "json", (label or "").lower()):
                    content = file_content(file, member.offset_data, member.size)
                    found_label = _label(content, ending, label)
            close()
            _check_end(file, tar.offset)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{stored.place} is truncated or no tar file ({error}); copy it again") from error
    if unlabelled:
        wanted = f"{label!r}" if label else "in a .cls or .json file"
        raise ValueError(
            f"{counted(len(unlabelled), 'image')} of {stored.place} without a label, {wanted}: "
            f"{abridged(unlabelled)}; name it with ?label="
        )
    return PartIndex(
        columns={"offset": np.array(offsets, np.int64), "length": np.array(lengths, np.int64)},
        texts={"names": names, "label": labels},
        about=dict(left_out),
    )


def file_content(file: RangeFile, offset: int, size: int) -> bytes:
    """Returns bytes of a file; its position stays as it is."""
    place = file.tell()
    file.seek(offset)
    content = file.read(size)
    file.seek(place)
    return content


def _label(content: bytes, ending: str, label: str | None) -> str | None:
    """Returns the label in a file, as a text; None if it has none."""
    if ending != "json" or label == "json":
        return content.decode("utf-8", "backslashreplace").strip() or None
    try:
        values = json.loads(content)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return str(values) if isinstance(values, str | int) else None
    found = next((values[name] for name in ((label,) if label else _KEYS) if name in values), None)
    return str(found) if isinstance(found, str | int) else None


def _check_end(file: RangeFile, offset: int) -> None:
    """Raises `EOFError` unless a tar file ends with zeros, and nothing else; `tarfile` accepts any end."""
    rest = file_content(file, offset, _WINDOW) if offset < file.size() else b""
    if len(rest) < 512 or any(rest[:512]):
        raise EOFError(f"it ends after {file.size():,} bytes, in the middle")
    if any(rest):
        raise EOFError(f"data follow its end at byte {offset:,}, as in tar files that were joined by `cat`")
