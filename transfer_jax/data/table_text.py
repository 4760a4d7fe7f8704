"""Text tables as programs save them: their encodings, separators and quotes, and the line of each row."""

import codecs
import csv
import dataclasses
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from transfer_jax.data.file_endings import has_image_ending

_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the first bytes of a file; the longer ones first."""
_OTHER_FILES = {
    b"PK\x03\x04": "a workbook of a spreadsheet program, or a zip file",
    b"\xd0\xcf\x11\xe0": "a workbook of a spreadsheet program",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"SQLite format 3": "a database",
    b"%PDF": "a PDF file",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"version https://git-lfs": "a pointer of Git LFS (`git lfs pull` gets the file)",
    b"{": "a JSON file",
    b"[": "a JSON file",
    b"<!": "a web page",
    b"<html": "a web page",
}
"""Files of other kinds by their first bytes."""
_SEPARATORS = (",", "\t", ";", "|")
_SAMPLE = 50
"""Number of rows that the separator is chosen from."""


@dataclasses.dataclass(frozen=True)
class TextTable:
    """The rows of a text table.

    Attributes:
        rows: The fields of each row that is not empty, the header included.
        lines: The number of the first line of each row, from 1.
        notes: Sentences about how the file was read.
    """

    rows: list[list[str]]
    lines: list[int]
    notes: tuple[str, ...]


def read_text_table(path: Path) -> TextTable:
    """Reads a text table, plain or compressed by gzip.

    The encoding is that of the byte-order mark, or UTF-8, or else Windows-1252, with a note. Fields are
    separated by commas, tabs, semicolons or bars, or by spaces if the first field of each row is an image
    file. A first line `sep=;` names the separator; lines above the header that begin with `#` are left out.

    Args:
        path: The file.

    Raises:
        ValueError: If the file does not exist, is of another kind, or contains a quote that never closes.
    """
    if not path.is_file():
        what = "is a folder, not a table" if path.is_dir() else "does not exist"
        raise ValueError(f"the file {str(path)!r} {what}")
    text, notes = _decoded(_content(path), path)
    comments = re.match(r"(?:#[^,;|\t\r\n]*(?:\r\n|\r|\n))*", text)
    start = comments.end() if comments else 0
    first_line, text = 1 + len(text[:start].splitlines()), text[start:]
    limit = csv.field_size_limit(max(len(text), csv.field_size_limit()))  # Masks in cells are long.
    try:
        if given := re.match(r"sep=(.)\s*?(\r\n|\r|\n)", text):
            separator, first_line = given[1], first_line + 1
            text = text[given.end() :]
        else:
            separator = _separator(text)
        rows, lines = _parsed(text, separator, first_line, path)
    finally:
        csv.field_size_limit(limit)
    return TextTable(rows, lines, notes)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    start = content[:200].lstrip().lower()
    for first, kind in _OTHER_FILES.items():
        if start.startswith(first.lower()):
            raise ValueError(f"{str(path)!r} is {kind}, not a text table: save the table as CSV")
    return content


def _decoded(content: bytes, path: Path) -> tuple[str, tuple[str, ...]]:
    """Returns the text of a file, and a note if its encoding is a guess."""
    encoding = next((name for bom, name in _BOMS.items() if content.startswith(bom)), None)
    if encoding is None and content[:400].count(0) > len(content[:400]) // 4:
        encoding = "utf-16-le" if content[1::2][:200].count(0) > content[::2][:200].count(0) else "utf-16-be"
    try:
        text = content.decode(encoding or "utf-8")
        if "\0" in text:
            raise ValueError(f"{str(path)!r} contains zero bytes: it is not a text table")
        return text, ()
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise ValueError(f"{str(path)!r} is damaged: {error}") from error
        line = content.count(b"\n", 0, error.start) + 1
    if b"\0" in content:
        raise ValueError(f"{str(path)!r} contains zero bytes: it is not a text table")
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    note = (
        f"{path.name} is not UTF-8 (line {line}) and is read as Windows-1252. "
        "If letters are wrong, save it as UTF-8"
    )
    return text, (note,)


def _separator(text: str) -> str:
    """Returns the separator that gives rows of equal numbers of fields, one of which is an image file."""

    def fit(separator: str) -> tuple[bool, float]:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        try:
            rows = [*itertools.islice((row for row in lines if row), _SAMPLE)]
        except csv.Error:
            return False, 0.0
        width = len(rows[0]) if rows else 0
        if width < 2:
            return False, 0.0
        has_image = any(has_image_ending(field.strip()) for row in rows[:5] for field in row)
        return has_image, sum(len(row) in (width, width + 1) for row in rows) / len(rows)

    fits = {separator: fit(separator) for separator in _SEPARATORS}
    best = max(_SEPARATORS, key=lambda separator: fits[separator])
    if fits[best][1]:
        return best
    has_image, share = fit(" ")
    return " " if has_image and share == 1 else ","


def _parsed(text: str, separator: str, line: int, path: Path) -> tuple[list[list[str]], list[int]]:
    """Returns the rows that are not empty, and their lines.

    Args:
        text: The text of the table.
        separator: The separator of its fields.
        line: Number of the first line of the text.
        path: The file, for messages.
    """
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    rows, lines, before, start = [], [], line - 1, line
    try:
        for row in reader:
            end = before + reader.line_num
            if any(map(str.strip, row)):
                rows.append(row)
                lines.append(start)
                if end > start and _swallows(row, len(rows[0]), separator):
                    raise csv.Error(f"{end - start + 1} lines would be one row")
            start = end + 1
    except csv.Error as error:
        raise ValueError(
            f"{str(path)!r}, line {start}: a quote opens in this row and does not close correctly ({error}). "
            "Close or remove it; a quote inside a quoted field is written twice"
        ) from error
    return rows, lines


def _swallows(row: Sequence[str], columns: int, separator: str) -> bool:
    """Returns True if a row of several lines contains other rows in one of its fields."""
    inner = [line for field in row if len(parts := field.splitlines()) > 1 for line in parts]
    return len(row) != columns or any(
        separator in line and any(map(has_image_ending, line.split(separator))) for line in inner
    )
