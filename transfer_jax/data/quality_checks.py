"""Checks of a dataset for problems that harm training or bias its scores."""

import collections
import dataclasses
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.decode import FORMATS
from transfer_jax.data.scan import ImageScan
from transfer_jax.data.split import unevaluated_classes, unevaluated_text

FEW = 10
"""Number of images of a class below which its training and its score are unreliable."""
UNEVEN = 3.0
"""Smallest ratio of the largest class to the smallest class of uneven classes."""
_ONE_CLASS = 0.9
"""Fraction of the largest class above which accuracy is meaningless."""
_ENLARGED = 2.0
"""Smallest enlargement of images to the network's input that is reported."""
_SHORTCUT = 0.02
"""Largest fraction of other images with a property of all images of a class that makes it a shortcut."""
_EXAMPLES = 5
"""Largest number of examples of a finding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem of a dataset.

    Attributes:
        kind: The check that found it, one of the keys of `CHECKS`.
        text: A description in one line, with figures.
        advice: The recommended action; empty if there is none.
        figures: The figures by name.
        examples: Names of affected images or classes, at most five entries.
    """

    kind: str
    text: str
    advice: str = ""
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    examples: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        return f"{self.text}. To do: {self.advice}" if self.advice else self.text

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as plain JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class CheckInput:
    """The input of the checks.

    Attributes:
        dataset: All images.
        scan: The scan of these images.
        training: bool `(n,)`, True for training images.
        held_out: bool `(n,)`, True for validation images.
        image_size: Side of the network's input, in pixels.
    """

    dataset: ImageDataset
    scan: ImageScan
    training: np.ndarray
    held_out: np.ndarray
    image_size: int

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each class by name, bad images included."""
        return self.dataset.counts()

    def names(self, rows: np.ndarray) -> tuple[tuple[str, ...], ...]:
        """Returns the names of the images in the first rows of an array of positions."""
        return tuple(
            tuple(self.dataset.names[int(i)] for i in np.atleast_1d(row)) for row in rows[:_EXAMPLES]
        )


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
    return tuple(itertools.chain.from_iterable(check(data) for check in CHECKS.values()))


def _bad(data: CheckInput) -> Iterator[Finding]:
    bad = np.flatnonzero(data.scan.bad)
    if len(bad):
        yield Finding(
            kind="bad",
            text=f"{_images_text(len(bad))} of {len(data.dataset):,} cannot be read: {data.scan.reasons[0]}",
            advice="fix or remove them, or skip them with --on-bad-image skip",
            figures={"images": len(bad)},
            examples=tuple((reason,) for reason in data.scan.reasons[:_EXAMPLES]),
        )


def _dark(data: CheckInput) -> Iterator[Finding]:
    """Finds nearly black images, such as 12-bit values in 16-bit files without a stated range."""
    dark = np.flatnonzero(data.scan.dark)
    if len(dark):
        yield Finding(
            kind="dark",
            text=f"nearly black: {_images_text(len(dark))} of {len(data.dataset):,}, such as "
            f"{data.dataset.names[int(dark[0])]}",
            advice="inspect them; if they are 16-bit files with values of 12 bits, multiply the values by 16",
            figures={"images": len(dark)},
            examples=data.names(dark),
        )


def _pages(data: CheckInput) -> Iterator[Finding]:
    """Finds animations and files with several pages, of which only the first image is used."""
    paged = np.flatnonzero(data.scan.paged)
    if len(paged):
        yield Finding(
            kind="pages",
            text=f"only the first frame or page is used: {_images_text(len(paged))} of {len(data.dataset):,} "
            f"with more, such as {data.dataset.names[int(paged[0])]}",
            advice="save the frames or pages as files if the others matter",
            figures={"images": len(paged)},
            examples=data.names(paged),
        )


def _leak(data: CheckInput) -> Iterator[Finding]:
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
        text=f"{len(leaked):,} of {data.held_out.sum():,} validation images ({share:.1%}) have a near "
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


def _unevaluated(data: CheckInput) -> Iterator[Finding]:
    """Finds classes that have training images but no validation images."""
    labels, names = data.dataset.labels, data.dataset.class_names
    classes = unevaluated_classes(names, labels[data.training], labels[data.held_out])
    if not classes or not data.held_out.any():
        return
    evaluated = np.unique(labels[data.held_out])
    alone = (
        f"; with {names[evaluated[0]]!r} alone in them, scores mean nothing" if len(evaluated) == 1 else ""
    )
    pairs = np.unique(np.stack((labels, data.scan.groups), axis=1), axis=0)
    groups = dict(zip(names, np.bincount(pairs[:, 0], minlength=len(names)), strict=True))
    alike = [name for name in classes if groups[name] == 1 and data.counts[name] > 1]
    if data.dataset.held_out is not None:
        advice = "add validation images of them"
    elif alike:
        advice = (
            f"add other images of {alike[0]!r}: all that it has are near duplicates, which stay on one side; "
            "--no-keep-together divides them, but then the score is too high"
        )
    else:
        advice = "add images of them"
    yield Finding(
        kind="unevaluated",
        text=f"{unevaluated_text(classes)}, of {len(names):,} in all: trained, but in no score" + alone,
        advice=advice,
        figures={"classes": len(classes)},
        examples=tuple((name,) for name in classes[:_EXAMPLES]),
    )


def _copies(data: CheckInput) -> Iterator[Finding]:
    groups, sizes = np.unique(data.scan.groups, return_counts=True)
    several = groups[sizes > 1]
    if not len(several):
        return
    spare = int(sizes[sizes > 1].sum() - len(several))
    pairs = data.scan.pairs
    yield Finding(
        kind="copies",
        text=f"{_groups_text(len(several))} of near duplicates with {_images_text(spare)} too many, "
        f"of {len(data.dataset):,} in all, such as {_pair_text(data, pairs[0])}",
        advice="remove them if possible: they add little to training and count several times in the score",
        figures={"images": spare, "groups": len(several), "largest": int(sizes.max())},
        examples=data.names(pairs),
    )


def _two_labels(data: CheckInput) -> Iterator[Finding]:
    labels, pairs = data.dataset.labels, data.scan.pairs
    odd = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    if len(odd):
        first, second = (data.dataset.class_names[labels[i]] for i in odd[0])
        yield Finding(
            kind="two_labels",
            text=f"{len(odd):,} pair{'s' * (len(odd) > 1)} of near duplicates with two labels, such as "
            f"{_pair_text(data, odd[0])}: "
            f"{first!r} and {second!r}",
            advice="inspect each pair, and correct the label or remove one of the images",
            figures={"pairs": len(odd)},
            examples=data.names(odd),
        )


def _few(data: CheckInput) -> Iterator[Finding]:
    few = {name: count for name, count in data.counts.items() if count < FEW}
    if few:
        yield Finding(
            kind="few",
            text=f"{_classes_text(len(few))} of {len(data.counts):,} have fewer than {FEW} images: "
            f"{_counts_text(few)}",
            advice="add images or merge classes; the score of such a class is largely random",
            figures={"classes": len(few), "smallest": min(few.values())},
            examples=tuple((name,) for name in [*few][:_EXAMPLES]),
        )


def _uneven(data: CheckInput) -> Iterator[Finding]:
    counts = {name: count for name, count in data.counts.items() if count}
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    ratio, share = counts[most] / counts[least], counts[most] / sum(counts.values())
    if ratio < UNEVEN:
        return
    text = (
        f"the classes are uneven, {ratio:.1f} to 1: {counts[most]:,} of {most!r}, {counts[least]:,} of "
        f"{least!r}; predicting {most!r} for all images is correct for {share:.0%}"
    )
    advice = "use the balanced accuracy, and try --class-weights balanced"
    if share > _ONE_CLASS:
        advice = f"an accuracy of {share:.0%} is meaningless here: {advice}, or add images of other classes"
    yield Finding(kind="uneven", text=text, advice=advice, figures={"ratio": ratio, "share": share})


def _similar_names(data: CheckInput) -> Iterator[Finding]:
    """Finds class names that differ only in case, spaces, accents or a plural ending."""
    alike = collections.defaultdict(list)
    for name in data.dataset.class_names:
        alike[_normalized(name)].append(name)
    groups = []
    for word, names in alike.items():
        plurals = {f"{word}s", f"{word}es", f"{word.removesuffix('y')}ies"}
        together = [*names, *(name for plural in sorted(plurals & {*alike}) for name in alike[plural])]
        if len(together) > 1:
            groups.append(tuple(together))
    if groups:
        shown = "; ".join(" and ".join(map(repr, names)) for names in groups[:_EXAMPLES])
        yield Finding(
            kind="names",
            text=f"class names are nearly identical: {shown}",
            advice="if they have the same meaning, merge the classes",
            figures={"groups": len(groups)},
            examples=tuple(groups[:_EXAMPLES]),
        )


def _normalized(name: str) -> str:
    """Returns a name without case, accents, spaces and dashes."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(
        each for each in letters if not (unicodedata.combining(each) or each.isspace() or each in "-_")
    )


def _shortcut(data: CheckInput) -> Iterator[Finding]:
    """Finds classes that the format, the size or the colour of the files identifies."""
    good = ~data.scan.bad
    sizes = np.array([f"{width} x {height} pixels" for width, height in data.scan.sizes])
    kinds = np.array([*FORMATS, "no file"])[data.scan.kinds]
    colours = np.where(data.scan.gray, "gray", "in colour")
    for what, values in (("format", kinds), ("size", sizes), ("colour", colours)):
        classes = [*_identified_classes(data, values, good)]
        if classes:
            name, value, others = classes[0]
            more = f"; the same holds for {len(classes) - 1} more" if len(classes) > 1 else ""
            yield Finding(
                kind="shortcut",
                text=f"the {what} of the files identifies classes: all images of {name!r} are {value}, and "
                f"{others:.0%} of the other images{more}",
                advice=f"convert all images to one {what}: the network may learn it instead of the contents",
                figures={"classes": len(classes), "others": others},
                examples=tuple(entry[:2] for entry in classes[:_EXAMPLES]),
            )


def _identified_classes(
    data: CheckInput, values: np.ndarray, good: np.ndarray
) -> Iterator[tuple[str, str, float]]:
    """Yields classes whose images all have one value that few others have.

    Args:
        data: The dataset and its scan.
        values: Strings `(n,)`, a property of each image.
        good: bool `(n,)`, True for readable images.

    Yields:
        The name of the class, the value, and the fraction of other images that have it.
    """
    labels, classes = data.dataset.labels[good], len(data.dataset.class_names)
    found, codes = np.unique(values[good], return_inverse=True)
    images, having = np.bincount(labels, minlength=classes), np.bincount(codes)
    lowest, highest = np.full(classes, len(found)), np.full(classes, -1)
    np.minimum.at(lowest, labels, codes)
    np.maximum.at(highest, labels, codes)
    for label in np.flatnonzero((lowest == highest) & (images >= FEW) & (len(labels) - images >= FEW)):
        code = lowest[label]
        share = float((having[code] - images[label]) / (len(labels) - images[label]))
        if share <= _SHORTCUT:
            yield data.dataset.class_names[label], str(found[code]), share


def _small(data: CheckInput) -> Iterator[Finding]:
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


def _mixed(data: CheckInput) -> Iterator[Finding]:
    gray = data.scan.gray[~data.scan.bad]
    share = float(gray.mean()) if len(gray) else 0.0
    if 0 < share < 1:
        yield Finding(
            kind="mixed",
            text=f"some images are gray ({int(gray.sum()):,} of {len(gray):,}), the others in colour",
            advice="acceptable if new images are mixed likewise; otherwise convert all images to gray",
            figures={"gray": int(gray.sum()), "share": share},
        )


def _source_notes(data: CheckInput) -> Iterator[Finding]:
    for note in data.dataset.notes:
        yield Finding(kind="source", text=note)


CHECKS: dict[str, Callable[[CheckInput], Iterator[Finding]]] = {
    "source": _source_notes,
    "bad": _bad,
    "dark": _dark,
    "pages": _pages,
    "leak": _leak,
    "unevaluated": _unevaluated,
    "two_labels": _two_labels,
    "copies": _copies,
    "few": _few,
    "uneven": _uneven,
    "names": _similar_names,
    "shortcut": _shortcut,
    "small": _small,
    "mixed": _mixed,
}
"""Checks by kind, in the order of the findings."""


def _images_text(count: int) -> str:
    return f"{count:,} image" + "s" * (count != 1)


def _groups_text(count: int) -> str:
    return f"{count:,} group" + "s" * (count != 1)


def _classes_text(count: int) -> str:
    return f"{count:,} class" + "es" * (count != 1)


def _pair_text(data: CheckInput, pair: np.ndarray) -> str:
    return " and ".join(data.dataset.names[int(i)] for i in pair)


def _counts_text(counts: dict[str, int]) -> str:
    shown: Sequence[str] = [f"{name!r} {count}" for name, count in [*counts.items()][:_EXAMPLES]]
    more = f" and {len(counts) - _EXAMPLES} more" if len(counts) > _EXAMPLES else ""
    return ", ".join(shown) + more
