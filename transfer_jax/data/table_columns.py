"""The columns of a table that contain the images, their classes, groups and split, by name and by content."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from transfer_jax.data.image_files import abridged
from transfer_jax.data.table_split import OTHER_COLUMNS, SPLIT_COLUMNS, TRUTH_COLUMNS

IMAGE_COLUMNS = (
    *("path", "image", "file", "filename", "filepath", "imagepath", "imgpath", "imagefile", "imagename"),
    *("imgname", "imagefilename", "imagefilepath", "imagepaths", "imageid", "imgid", "img", "relativepath"),
    *("fname", "files", "images", "filenames", "paths", "photo", "picture"),
)
"""Names of the column of images, in lower case without spaces and punctuation; the first one is taken."""
LABEL_COLUMNS = (
    *("label", "labels", "class", "classname", "classlabel", "labelname", "target", "category"),
    *("categoryname", "classid", "labelid", "categoryid", "classes", "targets", "breed", "species", "y"),
)
"""Names of the column of classes, as `IMAGE_COLUMNS`."""
COUNTERS = ("", "index", "unnamed0", "unnamed01", "level0", "rownames")
"""Names of columns that count the rows; they are ignored unless they contain images."""
_SAMPLE = 100
"""Number of rows by which a column of images is recognized."""


class Columns(NamedTuple):
    """The columns of a table.

    Attributes:
        used: The position of the column `image`, of `label`, and of `group` and `split` if there are any.
        labels: The positions of all columns of labels, the first of which is `label`.
        others: The positions of all others, apart from empty columns and those that count the rows.
    """

    used: dict[str, int]
    labels: tuple[int, ...]
    others: tuple[int, ...]


def normalized(name: str) -> str:
    """Returns a column name in lower case without spaces and punctuation."""
    return re.sub(r"[\W_]+", "", name.casefold())


def is_header(row: Sequence[str], is_file: Callable[[str], bool]) -> bool:
    """Returns True if the first row of a table contains names of columns, False if it contains an image.

    Args:
        row: The fields of the first row.
        is_file: Returns True if a field is an image file.
    """
    known = {*IMAGE_COLUMNS, *LABEL_COLUMNS, *SPLIT_COLUMNS, *TRUTH_COLUMNS, "group"}
    return not any(normalized(field) not in known and is_file(field.strip()) for field in row)


def find_columns(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    wanted: Mapping[str, str | None],
    is_file: Callable[[str], bool],
    where: str,
) -> Columns:
    """Finds the columns of a table by their names, or else by their contents.

    Args:
        header: The names of the columns, empty for those without a name.
        rows: The fields of each row; all rows have as many as the header.
        wanted: The names that the caller gives for `image`, `label`, `group` and `split`; None for the usual
            ones. Several columns of labels are separated by commas.
        is_file: Returns True if a field is an image file.
        where: The table, for messages.

    Raises:
        ValueError: If a column is missing, or several columns may be meant.
    """
    shown = [name or f"column {i + 1}" for i, name in enumerate(header)]
    names = [normalized(name) for name in header]
    sample = rows[:_SAMPLE]
    labels = _label_names(wanted.get("label"), header)
    given = {**wanted, "label": labels[0] if labels else None}
    taken = {kind: _named(name, header, shown, where) for kind, name in given.items() if name is not None}
    more = tuple(_named(name, header, shown, where) for name in labels[1:])

    def free() -> list[int]:
        used = {*taken.values(), *more}
        return [i for i in range(len(header)) if i not in used and not ignored(i)]

    def ignored(i: int) -> bool:
        """Returns True for a column that counts the rows, or that is empty."""
        return (names[i] in COUNTERS and not _has_files(i)) or not any(row[i] for row in [header, *sample])

    def _has_files(i: int) -> bool:
        return 2 * sum(is_file(row[i].strip()) for row in sample) > len(sample)

    def take(kind: str, usual: Sequence[str]) -> None:
        """Takes the first of the usual names."""
        for name in usual:
            same = [i for i in free() if names[i] == name]
            if len(same) > 1:
                raise ValueError(f"{where} has {len(same)} columns {header[same[0]]!r}; rename all but one")
            if same and kind not in taken:
                taken[kind] = same[0]

    take("image", IMAGE_COLUMNS)
    if "image" not in taken:
        taken["image"] = next(iter([*filter(_has_files, free()), *free(), 0]))
    take("label", LABEL_COLUMNS)
    splits = {*SPLIT_COLUMNS, *TRUTH_COLUMNS}
    if "label" not in taken and len(rest := free()) == 1 and names[rest[0]] not in splits:
        taken["label"] = rest[0]
    take("group", ("group",))
    take("split", (*SPLIT_COLUMNS, *TRUTH_COLUMNS, *OTHER_COLUMNS))
    if "label" not in taken:
        taken["label"] = _only_column(free(), sample, shown, where)
    return Columns(taken, (taken["label"], *more), tuple(free()))


def _label_names(wanted: str | None, header: Sequence[str]) -> list[str]:
    """Returns the names of the columns of labels that a caller gives."""
    if wanted is None:
        return []
    return [wanted] if wanted in header else [name.strip() for name in wanted.split(",")]


def _named(name: str, header: Sequence[str], shown: Sequence[str], where: str) -> int:
    """Returns the column that a caller names."""
    same = [i for i, each in enumerate(header) if each == name]
    same = same or [i for i, each in enumerate(header) if normalized(each) == normalized(name)]
    if len(same) > 1:
        raise ValueError(f"{where} has {len(same)} columns {name!r}; rename all but one")
    if not same:
        raise ValueError(f"{where} has no column {name!r}; its columns are {abridged(shown, 20)}")
    return same[0]


def _only_column(rest: list[int], sample: Sequence[Sequence[str]], shown: Sequence[str], where: str) -> int:
    """Returns the only column that may contain the classes."""
    if len(rest) == 1:
        return rest[0]
    binary = [i for i in rest if {row[i].strip() for row in sample} <= {"0", "1", "0.0", "1.0"}]
    if len(binary) > 1 and sample:
        raise ValueError(
            f"{where} has a column of 0 and 1 for each class (one-hot): "
            f"{abridged([shown[i] for i in binary])}. If an image may have several labels, use "
            "--task multi_label and csv:FILE?label=" + ",".join(shown[i] for i in binary[:3]) + ",…. "
            "Otherwise replace them by one column 'label' with the name of the class in each row"
        )
    if not rest:
        raise ValueError(
            f"{where} has no column 'label'; its columns are {abridged(shown, 20)}. Each row needs the path "
            "of an image and the name of its class"
        )
    raise ValueError(
        f"{where} has no column 'label', and {len(rest)} others may contain the classes: "
        f"{abridged([shown[i] for i in rest])}. Name it: csv:FILE?label=COLUMN"
    )
