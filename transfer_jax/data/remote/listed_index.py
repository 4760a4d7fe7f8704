"""Indexes of listed folders, which later starts use without listing again."""

from typing import Any

from transfer_jax.data.index import INDEX_FOLDER, DatasetIndex, IndexInvalidError, IndexPlace
from transfer_jax.data.index.dataset_index import read_index

_ONLY_HERE = "only_here"
"""A file in the local folder of an index whose bucket is not writable."""


def listed_before(place: IndexPlace, kind: str, key: dict[str, Any]) -> DatasetIndex | None:
    """Returns the index of an earlier start; None if there is none that this version reads.

    Args:
        place: The place of the index in the bucket.
        kind: The kind of the index.
        key: The entries that its key must have.
    """
    places = [place, place.local()] if (place.folder / _ONLY_HERE).exists() else [place]
    for each in places:
        try:
            index = read_index(each)
        except IndexInvalidError:
            continue
        if (index.kind, {**index.key, **key}) == (kind, index.key):
            return index
    return None


def keep_place(place: IndexPlace, index: DatasetIndex) -> None:
    """Notes that a new index is on this machine only, if its bucket is not writable."""
    if place.system is not None and index.place.system is None and not place.names(index.contents):
        (place.folder / _ONLY_HERE).touch()


def list_again(place: IndexPlace, folder: str) -> str:
    """Returns how to list a folder again."""
    here = (place.folder / _ONLY_HERE).exists()
    return f"delete {place.folder if here else f'{folder}/{INDEX_FOLDER}'} and start again to list it again"
