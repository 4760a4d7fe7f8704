"""Datasets of a table of paths and labels."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.file_list import ListSource
from transfer_jax.data.image_files import abridged, from_files
from transfer_jax.data.image_paths import FoundFile, ImagePaths
from transfer_jax.data.index import IndexProgress
from transfer_jax.data.table_labels import read_labels
from transfer_jax.data.table_rows import TableRows, read_rows
from transfer_jax.data.table_targets import table_targets
from transfer_jax.data.targets import make_targets


def from_csv(
    path: str | os.PathLike[str],
    image_column: str | None = None,
    label_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    *,
    least_classes: int = 2,
    task: str = "auto",
    classes: Sequence[str] | None = None,
    finder: ImagePaths | None = None,
    progress: IndexProgress | None = None,
) -> ImageDataset:
    """Reads a table with one image in each row, such as a CSV or TSV file.

    Encodings and separators are recognized; see `read_text_table`. Names of columns are compared without
    case, spaces and punctuation. A table whose first row contains an image has no header. What is changed,
    left out or decided is in the `notes` of the dataset.

    The list of 50,000 images or more is kept, as that of a folder; see `from_folder`.

    Args:
        path: The table.
        image_column: Name of the column of image paths; None for `path`, `file`, `image` and similar names,
            or else the column that contains image files.
        label_column: Name of the column of class names; None for `label`, `class`, `target` and similar
            names, or else the only other column. For several labels or numbers also several names, separated
            by commas.
        root: Folder that relative image paths start from; None for the folder of the table.
        group_column: Name of the column of the groups of the images; None for `group` if there is such a
            column, otherwise no groups. The group of an empty field is `none`.
        split_column: Name of the column that says which images are for training, validation and test; None
            for `split`, `is_valid` and similar names.
        least_classes: The smallest number of classes: 2 to train on them, 1 to evaluate a model.
        task: The task. `multi_label` reads a cell with names separated by `|`, `;` or `,`, or a column of 0
            and 1 for each label; `regression` reads numbers; `ordinal` reads classes whose names begin with a
            number, or are in `classes`. `auto` is `single_label`.
        classes: The classes in their order, lowest first if they are ordered; None takes those of the table.
        finder: Finds the image files of the written paths, instead of `root`.
        progress: Receives a line when the list of a large table is made; None shows none.

    Returns:
        The dataset in the order of the rows. The names are the paths in the table, the classes the sorted
        labels.

    Raises:
        ValueError: If the table does not exist or is damaged, a column or a label is missing, labels are no
            classes, an image has two labels or is in two parts, or there are too few classes.
        FileNotFoundError: If image files are missing. The message names the first ones.
    """
    table = Path(path)
    where = repr(str(table))
    wanted = {"image": image_column, "label": label_column, "group": group_column, "split": split_column}
    source = None
    if finder is None:
        options = {**wanted, "root": None if root is None else os.fspath(root), "task": task}
        options |= {"least": least_classes, "classes": None if classes is None else [*classes]}
        source = ListSource(table.parent, {"source": "table", **options}, (table.name,))
        if (kept_list := source.opened()) is not None:
            return kept_list
    finder = finder or ImagePaths(table.parent if root is None else root)
    rows, column_of, notes = read_rows(table, finder, wanted)
    rows, unlabelled = rows.without_unlabelled_tests(only_all=task == "multi_label")
    notes = [*notes, *unlabelled]
    images, others = _stripped(rows.images, rows.lines, column_of["image"])
    rows, notes = dataclasses.replace(rows, images=images), [*notes, *others]
    if has_classes := task not in ("multi_label", "regression"):
        labels, more = _read_classes(rows, column_of)
        rows, notes = dataclasses.replace(rows, labels=labels), [*notes, *more]
    files = _found(rows, finder, where, notes)
    kept = _distinct(files, rows, where)
    if len(kept) < len(files):
        repeated = len(files) - len(kept)
        ignored = counted(repeated, "row that repeats an image is", "rows that repeat an image are")
        notes.append(f"{where}: {ignored} ignored")
    rows, files = rows.select(kept), [files[i] for i in kept]
    if has_classes:
        names = [label for (label,) in rows.labels]
        _check_classes(rows, column_of["label"], least_classes)
        targets, found = make_targets(names, task, classes)
    else:
        columns = column_of["labels"].split(",")
        targets, found, more = table_targets(rows.labels, columns, rows.lines, task, column_of["label"])
        notes += more
    paths = [file.path for file in files]
    stamps = [(file.status.st_size, file.status.st_mtime_ns) for file in files]
    dataset = from_files(paths, [file.name for file in files], targets, found.names, stamps, found)
    dataset = dataclasses.replace(
        dataset,
        groups=None if rows.groups is None else np.array(rows.groups, np.str_),
        held_out=rows.mask("validation"),
        test=rows.mask("test"),
        notes=(*notes, *finder.notes()),
    )
    return dataset if source is None else source.kept(dataset, paths, stamps, finder.listed, progress)


def _read_classes(rows: TableRows, column_of: Mapping[str, str]) -> tuple[list[tuple[str, ...]], list[str]]:
    """Returns the class of each row as `labels` of `TableRows`, and notes."""
    where = column_of["label"]
    if any(len(cells) > 1 for cells in rows.labels):
        raise ValueError(
            f"the columns {column_of['labels']} of a table are several targets, which needs the task "
            "multi_label or regression (--task)"
        )
    plural = where.lower().endswith(("tags'", "labels'", "classes'", "categories'", "attributes'"))
    labels, notes = read_labels([label for (label,) in rows.labels], rows.lines, where, plural)
    return [(label,) for label in labels], notes


def _stripped(images: list[str], lines: Sequence[int], where: str) -> tuple[list[str], list[str]]:
    """Returns paths without spaces around them, and a note if there were any."""
    stripped = [image.strip() for image in images]
    empty = [str(line) for line, image in zip(lines, stripped, strict=True) if not image]
    if empty:
        more = f" and {len(empty) - 5:,} more" if len(empty) > 5 else ""
        raise ValueError(
            f"{where}: no path in line {', '.join(empty[:5])}{more}. Fill it in or remove the row"
        )
    changed = sum(map(str.__ne__, images, stripped))
    return stripped, [f"{where}: spaces around {changed:,} paths are removed"] if changed else []


def _found(rows: TableRows, finder: ImagePaths, where: str, notes: Sequence[str]) -> list[FoundFile]:
    """Returns the file of each row."""
    files = [finder.find(image) for image in rows.images]
    # A later path may have shown the folder that all paths start from.
    files = [file or finder.find(image) for file, image in zip(files, rows.images, strict=True)]
    missing = [i for i, file in enumerate(files) if file is None]
    if missing:
        first = rows.images[missing[0]]
        shown = ", ".join(f"{rows.images[i]!r} in line {rows.lines[i]}" for i in missing[:3])
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        encoding = "".join(f" ({note})" for note in notes if "UTF-8" in note and not first.isascii())
        raise FileNotFoundError(
            f"{len(missing):,} of {counted(len(files), 'image')} of {where} "
            f"{'does' if len(missing) == 1 else 'do'} not exist: {shown}{more}; "
            f"{finder.explanation(first)}{encoding}"
        )
    return [file for file in files if file is not None]


def _distinct(files: Sequence[FoundFile], rows: TableRows, where: str) -> list[int]:
    """Returns the first row of each image.

    Raises:
        ValueError: If an image has two labels or is in two parts of the split.
    """
    first: dict[str, int] = {}
    kept = []
    conflicts: dict[str, tuple[int, int]] = {}
    for i, file in enumerate(files):
        key = os.path.normpath(file.path)
        before = first.setdefault(key, i)
        if before == i:
            kept.append(i)
        elif rows.labels[i] != rows.labels[before] or rows.part(i) != rows.part(before):
            conflicts.setdefault(key, (before, i))
    if conflicts:
        one, two = next(iter(conflicts.values()))
        is_label = rows.labels[one] != rows.labels[two]
        what = (
            f"the labels {', '.join(rows.labels[one])!r} in line {rows.lines[one]} and "
            f"{', '.join(rows.labels[two])!r} in line "
            if is_label
            else f"two parts of the split, in line {rows.lines[one]} and in line "
        )
        more = f" ({len(conflicts):,} images in all have two)" if len(conflicts) > 1 else ""
        raise ValueError(
            f"{where} lists the image {rows.images[one]!r} more than once, with {what}{rows.lines[two]}"
            f"{more}. Each image needs one row: remove the others"
        )
    return kept


def _check_classes(rows: TableRows, where: str, least_classes: int) -> None:
    """Raises ValueError if a training is impossible with the classes."""
    class_names = sorted({label for (label,) in rows.labels})
    if len(class_names) < least_classes:
        raise ValueError(f"{where} has the classes {list(class_names)}, needs two or more")
    if rows.parts is not None:
        train = {label for (label,), part in zip(rows.labels, rows.parts, strict=True) if part == "training"}
        if unknown := sorted({*class_names} - train):
            raise ValueError(
                f"{where} has classes with validation or test images but no training images: "
                f"{abridged(unknown)}. "
                "Remove their rows, or use some of them for training"
            )
