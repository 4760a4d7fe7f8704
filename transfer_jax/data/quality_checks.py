"""What in a set of images may spoil a training, or make its score better or worse than it is."""

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

FEW = 10
"""Images of a class below which neither training nor its score says much."""
UNEVEN = 3.0
"""Ratio of the largest class to the smallest from which on classes are uneven."""
_ONE_CLASS = 0.9
_ENLARGED = 2.0
"""Factor from which on enlarging images to the network's input is worth a word."""
_SHORTCUT = 0.02
"""Share of the other images that may have what all images of a class have, for it to be a shortcut."""
_EXAMPLES = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: What it is, one of the keys of `CHECKS`.
        text: What was found, in one line with figures.
        advice: What to do.
        figures: The figures.
        examples: Names of images or classes that it is about; not all, where there are many.
    """

    kind: str
    text: str
    advice: str
    figures: dict[str, float] = dataclasses.field(default_factory=dict)
    examples: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        return f"{self.text}. To do: {self.advice}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Sight:
    """What is looked at.

    Attributes:
        dataset: All images.
        survey: What a first look at them found.
        trained: bool `(n,)`, which are to train on.
        held_out: bool `(n,)`, which are to evaluate on.
        image_size: Side of the network's input, in pixels.
    """

    dataset: ImageDataset
    survey: ImageScan
    trained: np.ndarray
    held_out: np.ndarray
    image_size: int

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class, bad ones too."""
        return self.dataset.counts()

    def names(self, rows: np.ndarray) -> tuple[tuple[str, ...], ...]:
        """The names of the first few rows of image positions."""
        return tuple(
            tuple(self.dataset.names[int(i)] for i in np.atleast_1d(row)) for row in rows[:_EXAMPLES]
        )


def findings_of(
    dataset: ImageDataset, survey: ImageScan, trained: np.ndarray, held_out: np.ndarray, image_size: int
) -> tuple[Finding, ...]:
    """All that was found, what matters most first.

    Args:
        dataset: All images.
        survey: What a first look at them found.
        trained: bool `(n,)`, which of them are to train on.
        held_out: bool `(n,)`, which of them are to evaluate on.
        image_size: Side of the network's input, in pixels.
    """
    sight = Sight(dataset, survey, trained, held_out, image_size)
    return tuple(itertools.chain.from_iterable(check(sight) for check in CHECKS.values()))


def _bad(sight: Sight) -> Iterator[Finding]:
    bad = np.flatnonzero(sight.survey.bad)
    if len(bad):
        yield Finding(
            kind="bad",
            text=f"{_images(len(bad))} of {len(sight.dataset):,} cannot be read: {sight.survey.reasons[0]}",
            advice="mend or remove them, or leave them out by --on-bad-image skip",
            figures={"images": len(bad)},
            examples=tuple((reason,) for reason in sight.survey.reasons[:_EXAMPLES]),
        )


def _leak(sight: Sight) -> Iterator[Finding]:
    """Held-out images that a near duplicate trains; by way of others too."""
    groups = sight.survey.groups
    leaked = np.flatnonzero(sight.held_out & np.isin(groups, groups[sight.trained]))
    if not len(leaked):
        return
    first = {group: i for i, group in reversed([*enumerate(groups)]) if sight.trained[i]}
    pairs = np.array([(i, first[groups[i]]) for i in leaked])
    share = len(leaked) / sight.held_out.sum()
    yield Finding(
        kind="leak",
        text=f"{len(leaked):,} of {sight.held_out.sum():,} held-out images ({share:.1%}) have a near "
        f"duplicate among the training images, such as {_pair(sight, pairs[0])}",
        advice="the score would be too good: "
        + (
            "remove them from one side"
            if sight.dataset.held_out is not None
            else "keep them on one side by --keep-together"
        ),
        figures={"images": len(leaked), "share": share},
        examples=sight.names(pairs),
    )


def _copies(sight: Sight) -> Iterator[Finding]:
    groups, sizes = np.unique(sight.survey.groups, return_counts=True)
    several = groups[sizes > 1]
    if not len(several):
        return
    spare = int(sizes[sizes > 1].sum() - len(several))
    pairs = sight.survey.pairs
    yield Finding(
        kind="copies",
        text=f"{_images(spare)} of {len(sight.dataset):,} are near duplicates of others, in {len(several):,} "
        f"groups, such as {_pair(sight, pairs[0])}",
        advice="they teach little, and count several times in the score; remove them where you can",
        figures={"images": spare, "groups": len(several), "largest": int(sizes.max())},
        examples=sight.names(pairs),
    )


def _two_labels(sight: Sight) -> Iterator[Finding]:
    labels, pairs = sight.dataset.labels, sight.survey.pairs
    odd = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
    if len(odd):
        first, second = (sight.dataset.class_names[labels[i]] for i in odd[0])
        yield Finding(
            kind="two_labels",
            text=f"{len(odd):,} pair{'s' * (len(odd) > 1)} of near duplicates with two labels, such as "
            f"{_pair(sight, odd[0])}: "
            f"{first!r} and {second!r}",
            advice="look at them, and correct or remove one of each",
            figures={"pairs": len(odd)},
            examples=sight.names(odd),
        )


def _few(sight: Sight) -> Iterator[Finding]:
    few = {name: count for name, count in sight.counts.items() if count < FEW}
    if few:
        yield Finding(
            kind="few",
            text=f"{_classes(len(few))} of {len(sight.counts):,} have fewer than {FEW} images: "
            f"{_counted(few)}",
            advice="add images, or join classes; the score of such a class is a matter of chance",
            figures={"classes": len(few), "smallest": min(few.values())},
            examples=tuple((name,) for name in [*few][:_EXAMPLES]),
        )


def _uneven(sight: Sight) -> Iterator[Finding]:
    counts = {name: count for name, count in sight.counts.items() if count}
    most, least = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    ratio, share = counts[most] / counts[least], counts[most] / sum(counts.values())
    if ratio < UNEVEN:
        return
    text = (
        f"the classes are uneven, {ratio:.1f} to 1: {counts[most]:,} of {most!r}, {counts[least]:,} of "
        f"{least!r}; always to say {most!r} is right for {share:.0%}"
    )
    advice = "go by the balanced accuracy, and try --class-weights balanced"
    if share > _ONE_CLASS:
        advice = f"an accuracy of {share:.0%} means nothing here: {advice}, or add images of the others"
    yield Finding(kind="uneven", text=text, advice=advice, figures={"ratio": ratio, "share": share})


def _names(sight: Sight) -> Iterator[Finding]:
    """Class names that differ by case, space, accents or a plural only."""
    alike = collections.defaultdict(list)
    for name in sight.dataset.class_names:
        alike[_plain(name)].append(name)
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
            text=f"class names are nearly the same: {shown}",
            advice="if they mean the same, put their images into one class",
            figures={"groups": len(groups)},
            examples=tuple(groups[:_EXAMPLES]),
        )


def _plain(name: str) -> str:
    """A name without case, accents, space and dashes."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(
        each for each in letters if not (unicodedata.combining(each) or each.isspace() or each in "-_")
    )


def _shortcuts(sight: Sight) -> Iterator[Finding]:
    """What the file shows of a class, whatever is in the picture."""
    good = ~sight.survey.bad
    sizes = np.array([f"{width} x {height} pixels" for width, height in sight.survey.sizes])
    kinds = np.array([*FORMATS, "no file"])[sight.survey.kinds]
    colours = np.where(sight.survey.gray, "gray", "in colour")
    for what, values in (("format", kinds), ("size", sizes), ("colour", colours)):
        told = [*_told_by(sight, values, good)]
        if told:
            name, value, others = told[0]
            more = f", and so with {len(told) - 1} more" if len(told) > 1 else ""
            yield Finding(
                kind="shortcut",
                text=f"the {what} of the files tells classes apart: all of {name!r} are {value}, and "
                f"{others:.0%} of the others{more}",
                advice="the network may learn that instead of what is shown: bring all images to one form",
                figures={"classes": len(told), "others": others},
                examples=tuple(entry[:2] for entry in told[:_EXAMPLES]),
            )


def _told_by(sight: Sight, values: np.ndarray, good: np.ndarray) -> Iterator[tuple[str, str, float]]:
    """Classes with one value, what it is, and the share of the others that have it, where these are few."""
    labels, classes = sight.dataset.labels[good], len(sight.dataset.class_names)
    found, codes = np.unique(values[good], return_inverse=True)
    images, having = np.bincount(labels, minlength=classes), np.bincount(codes)
    lowest, highest = np.full(classes, len(found)), np.full(classes, -1)
    np.minimum.at(lowest, labels, codes)
    np.maximum.at(highest, labels, codes)
    for label in np.flatnonzero((lowest == highest) & (images >= FEW) & (len(labels) - images >= FEW)):
        code = lowest[label]
        share = float((having[code] - images[label]) / (len(labels) - images[label]))
        if share <= _SHORTCUT:
            yield sight.dataset.class_names[label], str(found[code]), share


def _small(sight: Sight) -> Iterator[Finding]:
    sides = sight.survey.shorter_sides
    if not len(sides):
        return
    side = float(np.median(sides))
    if side * _ENLARGED <= sight.image_size:
        yield Finding(
            kind="small",
            text=f"the images are small: half of them have {side:.0f} pixels or fewer, the network takes "
            f"{sight.image_size}, so they are enlarged {sight.image_size / side:.1f} times",
            advice="take larger ones if you can; else a smaller --image-size costs less, and may do as well",
            figures={"median": side, "image_size": sight.image_size},
        )


def _mixed(sight: Sight) -> Iterator[Finding]:
    gray = sight.survey.gray[~sight.survey.bad]
    share = float(gray.mean()) if len(gray) else 0.0
    if 0 < share < 1:
        yield Finding(
            kind="mixed",
            text=f"{_images(int(gray.sum()))} of {len(gray):,} are gray, the others in colour",
            advice="fine if new images are mixed like that; else make all of them gray",
            figures={"gray": int(gray.sum()), "share": share},
        )


CHECKS: dict[str, Callable[[Sight], Iterator[Finding]]] = {
    "bad": _bad,
    "leak": _leak,
    "two_labels": _two_labels,
    "copies": _copies,
    "few": _few,
    "uneven": _uneven,
    "names": _names,
    "shortcut": _shortcuts,
    "small": _small,
    "mixed": _mixed,
}
"""By kind, in the order in which findings are told."""


def _images(count: int) -> str:
    return f"{count:,} image" + "s" * (count != 1)


def _classes(count: int) -> str:
    return f"{count:,} class" + "es" * (count != 1)


def _pair(sight: Sight, pair: np.ndarray) -> str:
    return " and ".join(sight.dataset.names[int(i)] for i in pair)


def _counted(counts: dict[str, int]) -> str:
    shown: Sequence[str] = [f"{name!r} {count}" for name, count in [*counts.items()][:_EXAMPLES]]
    more = f" and {len(counts) - _EXAMPLES} more" if len(counts) > _EXAMPLES else ""
    return ", ".join(shown) + more
