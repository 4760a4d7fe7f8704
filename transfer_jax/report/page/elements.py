"""What a page is made of: sections of parts, plain data that `templates/elements.html` knows how to show."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

Cell = str | int | float | bool | None
"""What a table shows; None is left empty."""
Format = Literal["text", "percent", "count", "number", "seconds", "bytes", "operations", "rate", "code"]


@dataclasses.dataclass(frozen=True)
class Text:
    """Paragraphs.

    Attributes:
        paragraphs: What they say.
        lead: Whether they are what a reader should see first.
    """

    kind: ClassVar = "text"
    paragraphs: Sequence[str]
    lead: bool = False


@dataclasses.dataclass(frozen=True)
class Tile:
    """A figure to be seen from afar.

    Attributes:
        name: What it is.
        value: The figure.
        note: What to know about it.
    """

    name: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    kind: ClassVar = "tiles"
    tiles: Sequence[Tile]


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        format: How its cells are written.
    """

    name: str
    format: Format = "text"

    @property
    def numeric(self) -> bool:
        """Whether it has figures, which stand to the right and sort by size."""
        return self.format not in ("text", "code")


@dataclasses.dataclass(frozen=True)
class Link:
    """A cell that leads somewhere.

    Attributes:
        text: What it shows.
        target: Where to, relative to the page.
    """

    text: str
    target: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose rows can be sorted.

    Attributes:
        caption: What it shows.
        columns: Its columns; the first one names the rows.
        rows: A cell a column each.
        sortable: Whether another order of the rows makes sense.
    """

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell | Link]]
    sortable: bool = True


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart, and the figures that it is drawn from.

    Attributes:
        title: What it shows.
        about: How to read it; with the title what a screen reader says in its place.
        spec: Vega-Lite, with the figures in `data`.
        table: The figures, or what of them is worth reading one by one.
        wide: Whether it takes the width of the page.
    """

    kind: ClassVar = "chart"
    title: str
    about: str
    spec: Mapping[str, Any]
    table: Table
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Charts:
    """Charts side by side, as far as there is room."""

    kind: ClassVar = "charts"
    charts: Sequence[Chart]


@dataclasses.dataclass(frozen=True)
class Image:
    """An image with what to say of it.

    Attributes:
        source: A `data:` address.
        name: What it is a picture of.
        lines: What stands below it.
    """

    source: str
    name: str
    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Images:
    """Images side by side.

    Attributes:
        images: The images.
        wide: Whether they are wider than high.
    """

    kind: ClassVar = "images"
    images: Sequence[Image]
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Code:
    """Something to copy.

    Attributes:
        name: What it is.
        text: The text, lines and all.
        folded: Whether it is hidden until asked for.
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
        title: Its heading.
        parts: What is in it.
    """

    title: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """What a link to it ends in."""
        return "-".join(self.title.lower().split())


@dataclasses.dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: Its heading.
        subtitle: A line below it.
        sections: Its sections.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]


def replace_nonfinite(value: Any) -> Any:
    """A JSON value without what JSON has no words for: NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {name: replace_nonfinite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
