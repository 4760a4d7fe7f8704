"""Names in figures as they are: no formulas, and fonts that have their letters."""

import contextlib
import functools
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from transfer_jax.report.names import abridge

LABEL_WIDTH = 28
"""The largest width of a name in a figure, in columns of a terminal."""
_WIDE_RANGE = re.compile(r"CJK|Unicode|Fallback|Noto|Gothic|Hei|Ming|Song|Kai|Symbol|Droid|Free|Arial", re.I)
"""Names of fonts with letters of many scripts, which are tried first."""
_BOXES = re.compile("DejaVu Sans$|Last Resort")
"""The first font, and fonts that draw a box for each letter."""
_MOST_FONTS = 60
"""The largest number of fonts that are opened."""


def labels(names: Sequence[object], width: int = LABEL_WIDTH) -> list[str]:
    r"""Returns names for a figure: abridged, and with `$` escaped, which otherwise starts a formula.

    Names with letters that no installed font has, which are drawn as boxes, end with their number.

    Args:
        names: The names.
        width: The largest width of a name, in columns of a terminal.
    """
    missing = fonts(_letters_of(names))[1]
    numbers = [f" #{place}" if missing & {*str(name)} else "" for place, name in enumerate(names, 1)]
    shown = abridge(names, width)
    return [f"{name}{number}".replace("$", r"\$") for name, number in zip(shown, numbers, strict=True)]


@contextlib.contextmanager
def drawing(names: Sequence[object]) -> Iterator[None]:
    """Sets the fonts of the figures that are created and saved inside the context.

    A letter that no installed font has is drawn as a box, without a warning.

    Args:
        names: The names in the figures.
    """
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    settings: dict[Any, Any] = {"text.usetex": False, "text.parse_math": True}
    settings["font.family"] = fonts(_letters_of(names))[0]
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+|.*missing from|constrained_layout not applied")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


@functools.cache
def fonts(letters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Returns installed fonts that together have some letters, and the letters that no font has.

    DejaVu Sans, which comes with matplotlib, is the first font.
    """
    found, missing = ["DejaVu Sans"], {*letters} - _letters(font_manager.findfont("DejaVu Sans"))
    others = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    order = sorted(others, key=lambda name: (not _WIDE_RANGE.search(name), name))
    for name in [name for name in order if not _BOXES.match(name)][:_MOST_FONTS]:
        if missing and (known := missing & _letters(others[name])):
            found.append(name)
            missing -= known
    return found, frozenset(missing)


def _letters_of(names: Sequence[object]) -> frozenset[str]:
    """Returns the letters of names that a font may lack."""
    letters = {letter for name in names for letter in str(name) if ord(letter) > 0x7F}
    return frozenset(letter for letter in letters if unicodedata.category(letter)[0] not in "CZ")


@functools.cache
def _letters(path: str) -> frozenset[str]:
    """Returns the letters of a font; empty if it is unreadable or has only bitmaps, as emoji fonts do."""
    try:
        font = FT2Font(path)
        font.set_size(10, 72)
        return frozenset(map(chr, font.get_charmap()))
    except Exception:
        return frozenset()
