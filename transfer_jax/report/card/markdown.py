"""Markdown of model cards: tables, code, and names that people chose."""

import re
from collections.abc import Sequence

from transfer_jax.report.names import visible

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&$])")
"""Characters that have a meaning in Markdown or HTML."""
_NUMBER = re.compile(r"[-+]?\d")
"""The start of a cell with a number."""


def plain(name: object) -> str:
    """Returns a name whose characters have no meaning in Markdown, on one line."""
    return _SPECIAL.sub(r"\\\1", visible(name))


def code(text: str) -> str:
    """Returns a short text in the font of code; backticks in it are kept."""
    text = visible(text)
    marks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{marks} {text} {marks}" if len(marks) > 1 else f"`{text}`"


def block(text: str, language: str = "") -> str:
    """Returns a block of code; it must have no line of backticks."""
    return f"```{language}\n{text.replace('```', '` ` `')}\n```"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table; columns of numbers are aligned to the right.

    Args:
        columns: The names of the columns.
        rows: The cells, in Markdown, without line breaks.
    """
    cells = [[row[place] for row in rows if row[place]] for place in range(len(columns))]
    rules = ["---:" if each and all(map(_NUMBER.match, each)) else "---" for each in cells]
    lines = [columns, rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
