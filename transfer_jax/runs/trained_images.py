"""The images among others that a run was trained on."""

import contextlib
import hashlib
from collections import defaultdict
from pathlib import Path, PurePath

import numpy as np

from transfer_jax.data import ImageDataset
from transfer_jax.report.progress import Silent
from transfer_jax.runs.images import run_images, split_images
from transfer_jax.runs.run_start import PartStart, RunStart, read_start
from transfer_jax.runs.workdir import read_config

_READ = 5_000
"""The largest number of files whose contents are compared; of more, only names and sizes are."""


def count_trained(workdir: Path, dataset: ImageDataset) -> int | None:
    """Returns how many of some images are training images of the run in a workdir; None if that is not known.

    All images of the run are recognized by their names and classes, also in another folder. Other images are
    compared with the training images of the config, if these are still there: files of the same name and size
    are the same, and files of the same size and content.

    Args:
        workdir: The run's folder.
        dataset: The images.
    """
    try:
        start, config = read_start(workdir), read_config(workdir)
    except (FileNotFoundError, ValueError):
        return None  # A model without its run.
    if start is None:
        return None
    if len(dataset) == start.images:
        with contextlib.suppress(ValueError):  # Other images, which cannot be split.
            train = split_images(dataset, config).train
            if _is_train(train, start):
                return len(train)
    try:
        train = split_images(run_images(config, Silent(), workdir=workdir), config).train
    except (OSError, ValueError):
        return None
    if train.sizes is None or dataset.sizes is None or not _is_train(train, start):
        return None
    return int(_same_files(dataset, train).sum())


def _is_train(train: ImageDataset, start: RunStart) -> bool:
    return PartStart.names_of(train, start.train.rule) == start.train.order


def _same_files(dataset: ImageDataset, train: ImageDataset) -> np.ndarray:
    """Returns bool `(n,)`, True for the images of a dataset that are among the training images."""
    assert dataset.sizes is not None
    assert train.sizes is not None
    by_size = defaultdict(list)
    for index, size in enumerate(train.sizes.tolist()):
        by_size[size].append(index)
    known = {(PurePath(str(train.names[i])).name, size) for size, of in by_size.items() for i in of}
    names = [PurePath(str(name)).name for name in dataset.names]
    found = np.array([key in known for key in zip(names, dataset.sizes.tolist(), strict=True)], bool)
    unclear = [i for i in np.flatnonzero(~found).tolist() if int(dataset.sizes[i]) in by_size]
    compared = {int(dataset.sizes[i]) for i in unclear}
    if len(unclear) + sum(len(by_size[size]) for size in compared) > _READ:
        return found
    contents = {_digest(train, i) for size in compared for i in by_size[size]} - {None}
    found[unclear] = [_digest(dataset, i) in contents for i in unclear]
    return found


def _digest(dataset: ImageDataset, index: int) -> str | None:
    """Returns a hash of a file; None if it cannot be read."""
    try:
        content = dataset.read(index)
    except (OSError, ValueError):
        return None
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else None
