"""Datasets of a CSV table of paths and labels."""

import collections
import csv
import dataclasses
import os
from pathlib import Path

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.image_files import abridged, from_files


def from_csv(
    path: str | os.PathLike[str],
    image_column: str | None = None,
    label_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    group_column: str | None = None,
) -> ImageDataset:
    """Reads a UTF-8, comma-separated table with a header row and one image in each row.

    Args:
        path: The table.
        image_column: Name of the column of image paths; None for `path`, or the first column if there is no
            `path`.
        label_column: Name of the column of class names; None for `label`, or the second column if there is no
            `label`.
        root: Folder that relative image paths start from; None for the folder of the table.
        group_column: Name of the column of the groups of the images; None for `group` if there is such a
            column, otherwise no groups. The group of an empty field is `none`.

    Returns:
        The dataset in the order of the rows. The names are the paths in the table, the classes the sorted
        labels.

    Raises:
        ValueError: If the table does not exist, a column or a label is missing, an image is listed twice, or
            there are fewer than two classes.
        FileNotFoundError: If image files are missing. The message names the first ones.
    """
    table = Path(path)
    if not table.is_file():
        raise ValueError(f"the file {str(table)!r} does not exist")
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        image_column = _column(table, columns, image_column, "path", 0)
        label_column = _column(table, columns, label_column, "label", 1)
        if group_column is not None or "group" in {*columns} - {image_column, label_column}:
            group_column = _column(table, columns, group_column, "group", len(columns))
        rows = [
            (reader.line_num, row[image_column], row[label_column], row.get(group_column) or "none")
            for row in reader
        ]
    for line, name, label, _ in rows:
        if not name or not label:
            raise ValueError(
                f"{str(table)!r}, line {line}: empty {label_column if name else image_column!r} column"
            )
    names = [name for _, name, _, _ in rows]
    if repeated := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise ValueError(f"{str(table)!r} lists images more than once: {abridged(repeated)}")
    class_names = tuple(sorted({label for _, _, label, _ in rows}))
    if len(class_names) < 2:
        raise ValueError(
            f"{str(table)!r}: column {label_column!r} has the classes {list(class_names)}, needs two or more"
        )
    base = table.parent if root is None else Path(root)
    files = [base / name for name in names]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{len(missing)} of {len(files)} images of {str(table)!r} do not exist: {abridged(missing)}"
        )
    position = {name: i for i, name in enumerate(class_names)}
    dataset = from_files(files, names, [position[label] for _, _, label, _ in rows], class_names)
    if group_column is None:
        return dataset
    return dataclasses.replace(dataset, groups=np.array([group for *_, group in rows], dtype=np.str_))


def _column(table: Path, columns: list[str], wanted: str | None, usual: str, position: int) -> str:
    """Returns the wanted column if given, else the usual one, else the one at a position."""
    if wanted is None and usual in columns:
        return usual
    if wanted is None and position < len(columns):
        return columns[position]
    if wanted is None or wanted not in columns:
        raise ValueError(f"{str(table)!r} has no column {wanted or usual!r}; its columns are {columns}")
    return wanted
