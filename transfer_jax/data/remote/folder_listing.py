"""The objects below a folder in object storage, listed by all processes and resumed where this was killed."""

import functools
import time

import jax
import numpy as np

from transfer_jax.data.index import INDEX_FOLDER, IndexProgress, PartIndex, build_index, index_place
from transfer_jax.data.index.dataset_index import INDEX
from transfer_jax.storage.object_listing import StoredObject, list_objects, outer_folders

_KIND = "listing 1"
_SECONDS = 86_400
"""Seconds for which finished parts of a listing are used again."""


class FolderListing:
    """The objects below a folder, sorted by address.

    Subfolders are listed in parallel by all processes of a run, each its own. Those that are listed are kept
    beside the images for up to a day, until the index of the images is complete.

    Args:
        address: The address of the folder.
        progress: Receives the progress in subfolders.

    Attributes:
        objects: The objects.

    Raises:
        StorageError: If the folder is missing or not readable.
    """

    def __init__(self, address: str, progress: IndexProgress | None = None) -> None:
        self._place = None
        upper, folders = outer_folders(address)
        folders = [each for each in folders if INDEX_FOLDER not in each.split("/")]
        if not folders:
            self.objects = upper
            return
        # A part does not describe the objects in it, so that its result is used for a limited time only.
        key = {"folder": address, "period": int(time.time() // _SECONDS)}
        self._place = index_place(address, _KIND)
        index = build_index(
            _KIND, key, folders, functools.partial(_listed, address=address), self._place, progress
        )
        sizes, names, tags = index.column("size"), index.texts("names"), index.texts("tags")
        found = (
            StoredObject(f"{address}/{name}", size, tag)
            for name, size, tag in zip(names, sizes.tolist(), tags, strict=True)
        )
        self._contents = index.contents
        self.objects = sorted([*upper, *found], key=lambda each: each.place)

    def forget(self) -> None:
        """Deletes what is kept beside the images, unless other processes may read it."""
        if self._place is not None and not (jax.distributed.is_initialized() and jax.process_count() > 1):
            self._place.delete(INDEX)
            self._place.delete(self._contents)


def _listed(folder: str, address: str) -> PartIndex:
    """Returns the objects in a subfolder."""
    found = list_objects(folder)
    start = len(address) + 1
    return PartIndex(
        {"size": np.array([each.size for each in found], np.int64)},
        {"names": [each.place[start:] for each in found], "tags": [each.tag for each in found]},
    )
