"""Labels as they are written in tables: spaces, missing values, numbers, and several labels in a cell."""

import collections
import re
import unicodedata
from collections.abc import Mapping, Sequence

from transfer_jax.counted import counted
from transfer_jax.data.image_files import abridged

MISSING = frozenset(
    (
        *(
            "",
            "?",
            "#N/A",
            "#N/A N/A",
            "#NA",
            "<NA>",
            "N/A",
            "n/a",
            "NA",
            "NaN",
            "nan",
            "-NaN",
            "-nan",
            "NaT",
        ),
        *("NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    )
)
"""Labels that are missing values: those that pandas reads as missing, and `?`. So `none` and `na` are not."""
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
_FEW = 10
"""Number of classes up to which whole numbers and texts are never too many for the images."""


def read_labels(
    labels: Sequence[str], lines: Sequence[int], where: str, plural: bool = False
) -> tuple[list[str], list[str]]:
    """Returns the class name of each row, and sentences about what a user should know.

    Spaces around labels are removed, Unicode is brought into one normal form (NFC), and whole numbers lose
    their decimals (`1.0` becomes `1`).

    Args:
        labels: The labels as they are written, `(rows,)`.
        lines: The line of each row.
        where: The table and the column, for messages.
        plural: Whether the name of the column is in the plural, such as `tags`: words may then be labels.

    Raises:
        ValueError: If labels are missing or are numbers that are no classes, or if nearly all are different.
    """
    notes = []
    written = collections.Counter(labels)
    names = {label: unicodedata.normalize("NFC", label.strip()) for label in written}
    if spaces := sum(count for label, count in written.items() if label != label.strip()):
        notes.append(f"{where}: spaces around labels are removed in {_rows(spaces)}")
    missing = [i for i, label in enumerate(labels) if names[label] in MISSING]
    if missing:
        kinds = sorted({names[labels[i]] or "an empty cell" for i in missing})
        raise ValueError(
            f"{where}: {len(missing):,} of {_rows(len(labels))} have no label ({abridged(kinds)} in "
            f"{_lines(lines, missing)}). Fill them in or remove these rows; if it is the name of a class, "
            "change its spelling, such as 'none' for 'None'"
        )
    whole = {name: _whole(name) for name in sorted({*names.values()}) if _NUMBER.fullmatch(name)}
    _check_numbers(whole, {*names.values()}, len(labels), where)
    if changed := [name for name, number in whole.items() if number not in (None, name)]:
        notes.append(
            f"{where}: labels such as {changed[0]!r} are whole numbers and become {whole[changed[0]]!r}"
        )
    names = {label: whole.get(name) or name for label, name in names.items()}
    counts: dict[str, int] = collections.Counter()
    for label, count in written.items():
        counts[names[label]] += count
    if len(counts) > _FEW and len(counts) >= 0.9 * len(labels):
        raise ValueError(
            f"{where} has {len(counts):,} different labels in {_rows(len(labels))}, such as "
            f"{abridged(sorted(counts), 2)}: it does not contain classes. Name the right column: "
            "csv:FILE?label=COLUMN"
        )
    result = [names[label] for label in labels]
    notes += [
        *_numbers(counts, where),
        *_cases(counts, where),
        *_several(counts, result, lines, where, plural),
    ]
    return result, notes


def _whole(name: str) -> str | None:
    """Returns a number without decimals that are zero; None if it has others."""
    if re.fullmatch(r"[-+]?\d+", name):
        return name
    number = float(name.replace(",", "."))
    return str(int(number)) if number.is_integer() else None


def _check_numbers(whole: Mapping[str, str | None], names: set[str], rows: int, where: str) -> None:
    """Raises ValueError if the labels are measurements or identifiers instead of classes.

    Args:
        whole: For each numeric label, the whole number, or None if it has decimals.
        names: All labels.
        rows: The number of rows.
        where: The table and the column, for messages.
    """
    decimals = sorted(name for name, number in whole.items() if number is None)
    numeric = len(whole) == len(names) or len(whole) > max(_FEW, 0.8 * len(names))
    if numeric and (decimals or (len(names) > _FEW and 2 * len(names) > rows)):
        examples = abridged(decimals[:3] or sorted(whole)[:3])
        kind = "numbers with decimals" if decimals else "numbers that hardly repeat"
        raise ValueError(
            f"{where} has {kind} ({len(names):,} different ones in {_rows(rows)}, such as {examples}), which "
            "are not classes. If they are measurements, use --task regression. For a classification, write a "
            "class name into each row, such as 'low' or 'high'"
        )


def _numbers(counts: Mapping[str, int], where: str) -> list[str]:
    """Returns a note if the labels are many whole numbers that are no positions of classes."""
    if len(counts) <= 2 * _FEW or not all(re.fullmatch(r"[-+]?\d+", name) for name in counts):
        return []
    numbers = {int(name) for name in counts}
    if numbers == {*range(len(numbers))}:
        return []
    return [
        f"{where}: the labels are {len(numbers):,} whole numbers from {min(numbers)} to {max(numbers)}, and "
        "each is a class. If they are measurements, such as ages, use --task regression"
    ]


def _cases(counts: Mapping[str, int], where: str) -> list[str]:
    """Returns a note if labels differ only in case or in spaces."""
    alike: dict[str, list[str]] = {}
    for name in sorted(counts):
        alike.setdefault("".join(name.casefold().split()), []).append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    if not groups:
        return []
    first = " and ".join(f"{name!r} ({counts[name]:,})" for name in groups[0])
    more = f", and {len(groups) - 1} more" if len(groups) > 1 else ""
    return [
        f"{where}: labels differ only in case or spaces and are different classes: {first}{more}. "
        "Correct them if they mean the same"
    ]


def _several(
    counts: Mapping[str, int], labels: Sequence[str], lines: Sequence[int], where: str, plural: bool
) -> list[str]:
    """Returns a note if cells contain several labels."""
    lists = "|;, " if plural else "|;,"
    for separator in "|;,/+& ":
        parts = {name: _parts(name, separator) for name in counts}
        joined = {name: each for name, each in parts.items() if len(each) > 1}
        uses = collections.Counter(part for each in joined.values() for part in {*each})
        found = {
            name
            for name, each in joined.items()
            if all(part in counts for part in each)
            or (separator in lists and all(part in counts or uses[part] > 1 for part in each))
            or (separator in lists and name.startswith("["))
        }
        if found:
            rows = sum(counts[name] for name in found)
            first = next(i for i, label in enumerate(labels) if label in found)
            return [
                f"{where}: one cell seems to contain several labels in {_rows(rows)}, such as "
                f"{labels[first]!r} in line {lines[first]}. Each combination is a class of its own; if they "
                "are several labels, use --task multi_label"
            ]
    return []


def _parts(name: str, separator: str) -> list[str]:
    """Returns the labels in a cell that is split at a separator."""
    parts = [part.strip().strip("'\"") for part in name.strip("[](){}").split(separator)]
    return [part for part in parts if part]


def _rows(count: int) -> str:
    return counted(count, "row")


def _lines(lines: Sequence[int], rows: Sequence[int], limit: int = 5) -> str:
    """Returns the lines of some rows, the first ones by number."""
    shown = ", ".join(str(lines[row]) for row in rows[:limit])
    more = f" and {len(rows) - limit:,} more" if len(rows) > limit else ""
    return f"line{'s' * (len(rows) > 1)} {shown}{more}"
