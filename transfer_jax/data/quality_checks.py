"""Checks of a dataset for problems that harm training or bias its scores."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from transfer_jax.data import class_checks, image_checks
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.finding import CheckInput, Finding
from transfer_jax.data.scan import ImageScan
from transfer_jax.tasks import SingleLabel


def find_problems(
    dataset: ImageDataset, scan: ImageScan, training: np.ndarray, held_out: np.ndarray, image_size: int
) -> tuple[Finding, ...]:
    """Runs all checks and returns the problems, the most important ones first.

    Args:
        dataset: All images.
        scan: The result of `scan_images` for the dataset.
        training: bool `(n,)`, True for training images.
        held_out: bool `(n,)`, True for validation images.
        image_size: Side of the network's input, in pixels.
    """
    data = CheckInput(dataset, scan, training, held_out, image_size)
    has_classes = isinstance(dataset.task, SingleLabel)
    checks = [check for kind, check in CHECKS.items() if has_classes or kind not in _OF_CLASSES]
    return tuple(itertools.chain.from_iterable(check(data) for check in checks))


def find_problems_in_sample(
    dataset: ImageDataset,
    rows: np.ndarray,
    scan: ImageScan,
    training: np.ndarray,
    held_out: np.ndarray,
    image_size: int,
) -> tuple[Finding, ...]:
    """Runs the checks of classes on all images, and the checks of images on a sample of them.

    Args:
        dataset: All images.
        rows: int `(m,)`, the positions of the sample.
        scan: The scan of the sample.
        training: bool `(m,)`, True for training images of the sample.
        held_out: bool `(m,)`, True for validation images of the sample.
        image_size: Side of the network's input, in pixels.
    """
    everything = CheckInput(dataset, scan, training, held_out, image_size)
    sample = CheckInput(dataset.subset(rows), scan, training, held_out, image_size)
    has_classes = isinstance(dataset.task, SingleLabel)
    found = []
    for kind, check in CHECKS.items():
        if kind == "unevaluated" or (kind in _OF_CLASSES and not has_classes):
            continue
        if kind in _OF_LABELS:
            found += check(everything)
        else:
            text = f"in a sample of {len(rows):,} images: "
            found += [dataclasses.replace(each, text=text + each.text) for each in check(sample)]
    return tuple(found)


def _source_notes(data: CheckInput) -> Iterator[Finding]:
    """Repeats the notes of the source."""
    for note in data.dataset.notes:
        yield Finding(kind="source", text=note)


CHECKS: dict[str, Callable[[CheckInput], Iterator[Finding]]] = {
    "source": _source_notes,
    "bad": image_checks.bad,
    "dark": image_checks.dark,
    "pages": image_checks.pages,
    "leak": image_checks.leak,
    "unevaluated": class_checks.unevaluated,
    "two_labels": image_checks.two_labels,
    "copies": image_checks.copies,
    "few": class_checks.few,
    "uneven": class_checks.uneven,
    "names": class_checks.similar_names,
    "shortcut": class_checks.shortcut,
    "small": image_checks.small,
    "mixed": image_checks.mixed,
}
"""Checks by kind, in the order of the findings."""
_OF_CLASSES = {"unevaluated", "two_labels", "uneven", "names", "shortcut"}
"""Checks that need one class for each image."""
_OF_LABELS = {"source", "few", "uneven", "names"}
"""Checks that read no images."""
