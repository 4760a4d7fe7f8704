"""The elements of a page, such as sections, tables and charts; `templates/elements.html` renders them."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import quote

Cell = str | int | float | bool | None
"""The value of a table cell; None is shown as an empty cell."""
Format = Literal[
    "text", "percent", "points", "count", "number", "seconds", "bytes", "operations", "rate", "code"
]


@dataclasses.dataclass(frozen=True)
class Text:
    """Paragraphs.

    Attributes:
        paragraphs: The text of each paragraph.
        lead: Whether the text is shown large, as the summary of a page.
    """

    kind: ClassVar = "text"
    paragraphs: Sequence[str]
    lead: bool = False


@dataclasses.dataclass(frozen=True)
class Tile:
    """A number shown in large type.

    Attributes:
        name: The name of the number.
        value: The number, as text.
        note: An explanation, shown below the number.
    """

    name: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles side by side."""

    kind: ClassVar = "tiles"
    tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: The heading of the column.
        format: The format of its cells.
    """

    name: str
    format: Format = "text"

    @property
    def numeric(self) -> bool:
        """True if the cells are numbers, which are aligned right and sorted by value."""
        return self.format not in ("text", "code")


@dataclasses.dataclass(frozen=True)
class Link:
    """A table cell with a link.

    Attributes:
        text: The text of the link.
        target: The target of the link, relative to the page.
    """

    text: str
    target: str

    @property
    def address(self) -> str:
        """The target as a URL, in which `#`, `%`, `:` and `?` of folder names are escaped."""
        return quote(os.fsencode(self.target))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: The caption.
        columns: The columns; the first one names the rows.
        rows: The rows, with one cell for each column.
        sortable: Whether a reader can sort the rows.
        pairs: Whether a row is a name and a value. Long values take several lines, where other tables scroll.
    """

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | Link]]
    sortable: bool = True
    pairs: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart, with a table of its data.

    Attributes:
        title: The title.
        about: An explanation of the chart. Screen readers read the title and the explanation.
        spec: The Vega-Lite specification, with the data in `data`.
        table: A table of the data, or a summary of it.
        wide: Whether the chart takes the whole width of the page.
    """

    kind: ClassVar = "chart"
    title: str
    about: str
    spec: Mapping[str, Any]
    table: Table
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Charts:
    """Charts side by side, in as many columns as fit."""

    kind: ClassVar = "charts"
    charts: Sequence[Chart]


@dataclasses.dataclass(frozen=True)
class Image:
    """An image with a caption.

    Attributes:
        source: The image as a `data:` URL.
        name: The description of the image for screen readers.
        lines: The lines of the caption.
    """

    source: str
    name: str
    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Images:
    """Images side by side.

    Attributes:
        images: The images.
        wide: Whether the images are wider than high.
    """

    kind: ClassVar = "images"
    images: Sequence[Image]
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Code:
    """A block of code or text to copy.

    Attributes:
        name: The heading of the block.
        text: The text, which may have several lines.
        folded: Whether the block is closed at first.
    """

    kind: ClassVar = "code"
    name: str
    text: str
    folded: bool = False


Part = Text | Tiles | Table | Chart | Charts | Images | Code


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: The heading of the section.
        parts: The elements of the section.
    """

    title: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """The id of the section, for links to it."""
        return re.sub(r"[\W_]+", "-", self.title.lower()).strip("-")


@dataclasses.dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: The heading of the page.
        subtitle: The line below the heading.
        sections: The sections of the page.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]


def replace_nonfinite(value: Any) -> Any:
    """Returns a JSON value in which NaN and infinities, which JSON does not support, are replaced by None."""
    if isinstance(value, Mapping):
        return {name: replace_nonfinite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
