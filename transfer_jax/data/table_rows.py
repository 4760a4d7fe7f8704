"""The rows of a table of images: the columns that are used, and the header or its absence."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.file_endings import has_image_ending
from transfer_jax.data.image_files import abridged
from transfer_jax.data.image_paths import ImagePaths
from transfer_jax.data.table_columns import IMAGE_COLUMNS, find_columns, is_header, normalized
from transfer_jax.data.table_split import read_split
from transfer_jax.data.table_text import read_text_table


@dataclasses.dataclass(frozen=True)
class TableRows:
    """The columns of a table that are used, each with one entry for each row.

    Attributes:
        lines: The number of the first line of each row.
        images: The paths.
        labels: The cells of each row in the columns of labels.
        groups: The groups; None if there are none.
        parts: `training`, `validation` or `test` for each row; None if the table contains no split.
    """

    lines: list[int]
    images: list[str]
    labels: list[tuple[str, ...]]
    groups: list[str] | None
    parts: list[str] | None

    def select(self, chosen: Sequence[int]) -> "TableRows":
        """Returns some of the rows."""
        if len(chosen) == len(self.lines):
            return self
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return TableRows(**{name: values and [values[i] for i in chosen] for name, values in columns.items()})

    def part(self, row: int) -> str | None:
        """Returns the part of an image; None if the table contains no split."""
        return None if self.parts is None else self.parts[row]

    def without_unlabelled_tests(self, *, only_all: bool) -> tuple["TableRows", list[str]]:
        """Leaves out test images without a label, as tables of competitions have them; returns a note on it.

        Args:
            only_all: Leaves them out only if no test image has a label, because an image may have none.
        """
        tests = [row for row in range(len(self.lines)) if self.part(row) == "test"]
        unlabelled = {row for row in tests if not any(cell.strip() for cell in self.labels[row])}
        if not unlabelled or (only_all and len(unlabelled) < len(tests)):
            return self, []
        rows = self.select([row for row in range(len(self.lines)) if row not in unlabelled])
        if rows.parts is not None and len({*rows.parts}) == 1:
            rows = dataclasses.replace(rows, parts=None)
        left = counted(len(unlabelled), "test image without a label is", "test images without a label are")
        return rows, [f"{left} left out"]

    def mask(self, part: str) -> np.ndarray | None:
        """Returns bool `(rows,)`, True for the images of a part; None if it has none."""
        found = np.array([each == part for each in self.parts or ()], bool)
        return found if found.any() else None


def read_rows(
    table: Path, finder: ImagePaths, wanted: dict[str, str | None]
) -> tuple[TableRows, dict[str, str], list[str]]:
    """Reads the columns of a table that are used.

    Args:
        table: The table.
        finder: Finds image files, by which the header and the column of images are recognized.
        wanted: As for `find_columns`.

    Returns:
        The rows; the table and name of each used column, for messages; and sentences about how it was read.

    Raises:
        ValueError: As `read_text_table`, `find_columns` and `read_split`, or if a row has too many fields.
    """
    where, text = repr(str(table)), read_text_table(table)
    notes, rows, lines = [*text.notes], text.rows, text.lines

    def is_file(field: str) -> bool:
        return has_image_ending(field) or finder.find(field) is not None

    if not rows:
        raise ValueError(
            f"{where} is empty: it needs a header, such as 'path,label', and a row for each image"
        )
    if any(wanted.values()) or is_header(rows[0], is_file):
        header, rows, lines = [name.strip().lstrip("#").strip() for name in rows[0]], rows[1:], lines[1:]
        has_names = bool(rows) and all(len(row) == len(header) + 1 and row[-1] for row in rows)
        if has_names and not (normalized(header[0]) in IMAGE_COLUMNS and is_file(rows[0][0].strip())):
            header = ["", *header]  # R leaves out the name of the column of row names.
    else:
        header = [f"column {i + 1}" for i in range(len(rows[0]))]
        notes.append(f"{where} has no header: its first row is read as an image, {rows[0][0]!r}")
    if not rows:
        raise ValueError(f"{where} has a header, but no rows: it needs a row for each image")
    rows = _even(rows, lines, len(header), where)
    columns = find_columns(header, rows, wanted, is_file, where)
    finder.reset()
    shown = {kind: f"{where}, column {header[i] or str(i + 1)!r}" for kind, i in columns.used.items()}
    cells = {kind: [row[i] for row in rows] for kind, i in columns.used.items()}
    parts = None
    if "split" in cells:
        name = normalized(header[columns.used["split"]])
        parts, more = read_split(name, cells["split"], lines, shown["split"])
        notes += more
    unused = [header[i] or f"column {i + 1}" for i in columns.others]
    if "split" in cells and parts is None:
        unused.append(header[columns.used["split"]])
    if unused:
        targets, image = ",".join(header[i] for i in columns.labels), header[columns.used["image"]]
        notes.append(
            f"{where}: labels are read from {targets!r} and images from {image!r}; unused: {abridged(unused)}"
        )
    groups = [cell.strip() or "none" for cell in cells["group"]] if "group" in cells else None
    labels = [tuple(row[i] for i in columns.labels) for row in rows]
    shown["labels"] = ",".join(header[i] or str(i + 1) for i in columns.labels)
    return TableRows(lines, cells["image"], labels, groups, parts), shown, notes


def _even(rows: list[list[str]], lines: list[int], width: int, where: str) -> list[list[str]]:
    """Returns rows with as many fields as the header: filled, or without empty fields at the end."""
    for i, row in enumerate(rows):
        if len(row) == width:
            continue
        if any(field.strip() for field in row[width:]):
            raise ValueError(
                f"{where}, line {lines[i]}: {len(row)} fields, but the first row has {width}. Quote fields "
                'that contain the separator, such as "cat,dog"'
            )
        rows[i] = row[:width] + [""] * (width - len(row))
    return rows
