"""Checks of the classes of a dataset: few or uneven images, names, and what identifies a class."""

import collections
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.decode import FORMATS
from transfer_jax.data.finding import EXAMPLES, CheckInput, Finding
from transfer_jax.data.split import unevaluated_classes, unevaluated_text

FEW = 10
"""Number of images of a class below which its training and its score are unreliable."""
UNEVEN = 3.0
"""Smallest ratio of the largest class to the smallest class of uneven classes."""
_ONE_CLASS = 0.9
"""Fraction of the largest class above which accuracy is meaningless."""
_SHORTCUT = 0.02
"""Largest fraction of other images with a property of all images of a class that makes it a shortcut."""


def unevaluated(data: CheckInput) -> Iterator[Finding]:
    """Finds classes that have training images but no validation images."""
    labels, names = data.dataset.labels, data.dataset.class_names
    classes = unevaluated_classes(
        *(data.dataset.subset(np.flatnonzero(part)) for part in (data.training, data.held_out))
    )
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
        examples=tuple((name,) for name in classes[:EXAMPLES]),
    )


def few(data: CheckInput) -> Iterator[Finding]:
    """Finds classes with few images."""
    few = {name: count for name, count in data.counts.items() if count < FEW}
    if few:
        yield Finding(
            kind="few",
            text=f"{_classes_text(len(few))} of {len(data.counts):,} have fewer than {FEW} images: "
            f"{_counts_text(few)}",
            advice="add images or merge classes; the score of such a class is largely random",
            figures={"classes": len(few), "smallest": min(few.values())},
            examples=tuple((name,) for name in [*few][:EXAMPLES]),
        )


def uneven(data: CheckInput) -> Iterator[Finding]:
    """Finds a largest class with many times the images of the smallest one."""
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


def similar_names(data: CheckInput) -> Iterator[Finding]:
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
        shown = "; ".join(" and ".join(map(repr, names)) for names in groups[:EXAMPLES])
        yield Finding(
            kind="names",
            text=f"class names are nearly identical: {shown}",
            advice="if they have the same meaning, merge the classes",
            figures={"groups": len(groups)},
            examples=tuple(groups[:EXAMPLES]),
        )


def _normalized(name: str) -> str:
    """Returns a name without case, accents, spaces and dashes."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(
        each for each in letters if not (unicodedata.combining(each) or each.isspace() or each in "-_")
    )


def shortcut(data: CheckInput) -> Iterator[Finding]:
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
                examples=tuple(entry[:2] for entry in classes[:EXAMPLES]),
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


def _classes_text(count: int) -> str:
    return counted(count, "class")


def _counts_text(counts: dict[str, int]) -> str:
    shown: Sequence[str] = [f"{name!r} {count}" for name, count in [*counts.items()][:EXAMPLES]]
    more = f" and {len(counts) - EXAMPLES} more" if len(counts) > EXAMPLES else ""
    return ", ".join(shown) + more
