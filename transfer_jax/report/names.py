"""Names of classes, phases and images as people read them: every character visible, long names abridged.

Names come from folders, tables and users, so they contain anything: newlines, `$`, 300 letters, only spaces.
"""

import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len

_INVISIBLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that are shown as escapes: control characters, lone surrogates, line separators."""


def visible(name: object) -> str:
    r"""Returns a name on one line, with escapes such as `\n` for characters that have no shape.

    Quotation marks surround a name without any visible character, and one that starts or ends with a space.
    All other names are returned as they are.

    Args:
        name: The name, which need not be a string.
    """
    text = "".join(_escaped(letter) for letter in str(name))
    has_shape = any(unicodedata.category(letter)[0] in "LMNPS" for letter in text)
    return text if has_shape and text == text.strip() else f"“{text}”"


def abridge(names: Sequence[object], width: int) -> list[str]:
    """Returns names as `visible` shows them, the long ones with `…` in their middle.

    Different names stay different: if two look the same when abridged, each ends with its number in the
    sequence.

    Args:
        names: The names.
        width: The largest width in columns of a terminal; wide letters take two.
    """
    short = [_cut(visible(name), width) for name in names]
    owners: dict[str, set[object]] = {}
    for name, cut in zip(names, short, strict=True):
        owners.setdefault(cut, set()).add(name)
    return [
        cut if len(owners[cut]) == 1 else f"{_cut(visible(name), width - len(f' #{number}'))} #{number}"
        for number, (name, cut) in enumerate(zip(names, short, strict=True), 1)
    ]


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) not in _INVISIBLE:
        return letter
    return letter.encode("unicode_escape").decode()


def _cut(name: str, width: int) -> str:
    """Returns a name that is at most `width` columns wide: its first two thirds and its end."""
    if cell_len(name) <= width:
        return name
    room = max(width - 1, 2)
    head, tail = _first(name, room - room // 3), _first(name[::-1], room // 3)[::-1]
    while tail and unicodedata.combining(tail[0]):  # A mark belongs to the letter before it.
        tail = tail[1:]
    return f"{head}…{tail}"


def _first(text: str, width: int) -> str:
    """Returns the first characters of a text that fit into a width."""
    used = 0
    for count, letter in enumerate(text):
        used += cell_len(letter)
        if used > width:
            return text[:count]
    return text
