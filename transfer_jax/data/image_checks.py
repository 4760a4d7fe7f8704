"""Checks of the images of a dataset: bad, nearly black, alike, small or mixed ones."""

from collections.abc import Iterator

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.finding import EXAMPLES, CheckInput, Finding
from transfer_jax.data.image_files import abridged

_ENLARGED = 2.0
"""Smallest enlargement of images to the network's input that is reported."""


def bad(data: CheckInput) -> Iterator[Finding]:
    """Finds images that cannot be read."""
    bad = np.flatnonzero(data.scan.bad)
    if len(bad):
        left = data.dataset.subset(np.flatnonzero(~data.scan.bad)).counts()
        lost = [name for name, count in data.dataset.counts().items() if count and not left[name]]
        classes = abridged(lost)
        without = f"; classes without a readable image: {classes}" if len(lost) else ""
        yield Finding(
            kind="bad",
            text=f"{counted(len(bad), 'image')} of {len(data.dataset):,} cannot be read: "
            f"{data.scan.reasons[0]}" + without,
            advice="fix or remove them, or skip them with --on-bad-image skip",
            figures={"images": len(bad)},
            examples=tuple((reason,) for reason in data.scan.reasons[:EXAMPLES]),
        )


def dark(data: CheckInput) -> Iterator[Finding]:
    """Finds nearly black images, such as 12-bit values in 16-bit files without a stated range."""
    dark = np.flatnonzero(data.scan.dark)
    if len(dark):
        yield Finding(
            kind="dark",
            text=f"nearly black: {counted(len(dark), 'image')} of {len(data.dataset):,}, such as "
            f"{data.dataset.names[int(dark[0])]}",
            advice="inspect them; if they are 16-bit files with values of 12 bits, multiply the values by 16",
            figures={"images": len(dark)},
            examples=data.names(dark),
        )


def pages(data: CheckInput) -> Iterator[Finding]:
    """Finds animations and files with several pages, of which only the first image is used."""
    paged = np.flatnonzero(data.scan.paged)
    if len(paged):
        yield Finding(
            kind="pages",
            text="only the first frame or page is used: "
            f"{counted(len(paged), 'image')} of {len(data.dataset):,} "
            f"with more, such as {data.dataset.names[int(paged[0])]}",
            advice="save the frames or pages as files if the others matter",
            figures={"images": len(paged)},
            examples=data.names(paged),
        )


def leak(data: CheckInput) -> Iterator[Finding]:
    """Finds validation images with near duplicates, directly or through others, among the training images."""
    groups = data.scan.groups
    leaked = np.flatnonzero(data.held_out & np.isin(groups, groups[data.training]))
    if not len(leaked):
        return
    first = {group: i for i, group in reversed([*enumerate(groups)]) if data.training[i]}
    pairs = np.array([(i, first[groups[i]]) for i in leaked])
    share = len(leaked) / data.held_out.sum()
    yield Finding(
        kind="leak",
        text=f"{len(leaked):,} of {counted(data.held_out.sum(), 'validation image')} ({share:.1%}) "
        f"{'has' if len(leaked) == 1 else 'have'} a near "
        f"duplicate among the training images, such as {_pair_text(data, pairs[0])}",
        advice="the score would be too high: "
        + (
            "remove them from one side"
            if data.dataset.held_out is not None
            else "keep them on one side with --keep-together"
        ),
        figures={"images": len(leaked), "share": share},
        examples=data.names(pairs),
    )


def copies(data: CheckInput) -> Iterator[Finding]:
    """Finds groups of near duplicates."""
    groups, sizes = np.unique(data.scan.groups, return_counts=True)
    several = groups[sizes > 1]
    if not len(several):
        return
    spare = int(sizes[sizes > 1].sum() - len(several))
    pairs = data.scan.pairs
    yield Finding(
        kind="copies",
        text=f"{counted(len(several), 'group')} of near duplicates with {counted(spare, 'image')} too many, "
        f"of {len(data.dataset):,} in all, such as {_pair_text(data, pairs[0])}",
        advice="remove them if possible: they add little to training and count several times in the score",
        figures={"images": spare, "groups": len(several), "largest": int(sizes.max())},
        examples=data.names(pairs),
    )


def two_labels(data: CheckInput) -> Iterator[Finding]:
    """Finds near duplicates with different labels."""
    labels, pairs = data.dataset.labels, data.scan.pairs
    odd = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    if len(odd):
        first, second = (data.dataset.class_names[labels[i]] for i in odd[0])
        yield Finding(
            kind="two_labels",
            text=f"{counted(len(odd), 'pair')} of near duplicates with two labels, such as "
            f"{_pair_text(data, odd[0])}: "
            f"{first!r} and {second!r}",
            advice="inspect each pair, and correct the label or remove one of the images",
            figures={"pairs": len(odd)},
            examples=data.names(odd),
        )


def small(data: CheckInput) -> Iterator[Finding]:
    """Finds images that are enlarged to the input of the network."""
    sides = data.scan.shorter_sides
    if not len(sides):
        return
    side = float(np.median(sides))
    if side * _ENLARGED <= data.image_size:
        yield Finding(
            kind="small",
            text=f"the images are small: half of them have {side:.0f} pixels or fewer. The network takes "
            f"{data.image_size}, so they are enlarged {data.image_size / side:.1f} times",
            advice="use larger images if possible; else a smaller --image-size costs less and may suffice",
            figures={"median": side, "image_size": data.image_size},
        )


def mixed(data: CheckInput) -> Iterator[Finding]:
    """Finds gray images among images in colour."""
    gray = data.scan.gray[~data.scan.bad]
    share = float(gray.mean()) if len(gray) else 0.0
    if 0 < share < 1:
        yield Finding(
            kind="mixed",
            text=f"some images are gray ({int(gray.sum()):,} of {len(gray):,}), the others in colour",
            advice="acceptable if new images are mixed likewise; otherwise convert all images to gray",
            figures={"gray": int(gray.sum()), "share": share},
        )


def _pair_text(data: CheckInput, pair: np.ndarray) -> str:
    return " and ".join(data.dataset.names[int(i)] for i in pair)
