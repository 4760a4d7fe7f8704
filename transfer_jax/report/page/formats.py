"""Short text for numbers, the same everywhere in reports."""

import math
from collections.abc import Callable

from transfer_jax.report.names import visible
from transfer_jax.report.page.elements import Cell, Format


def percent(value: float) -> str:
    """Returns a fraction as text, such as 74.1%."""
    return f"{value:.1%}"


def points(value: float) -> str:
    """Returns a difference of two fractions as text, such as +1.8 points."""
    return f"{100 * value:+.1f} points"


def count(value: float) -> str:
    """Returns a whole number as text, such as 3,413,024."""
    return f"{value:,.0f}"


def number(value: float) -> str:
    """Returns a number with four digits, such as 0.6931 or 1.2e-05."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rate(value: float) -> str:
    """Returns a learning rate as text, such as 0.001; 0 is the rate of a frozen block."""
    return "0" if value == 0 else f"{value:.2g}"


def seconds(value: float) -> str:
    """Returns a time as text, such as 0.3 s, 42 s, 3 min 05 s or 2 h 07 min."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(value: float) -> str:
    """Returns a number of bytes as text, such as 12.3 MB."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{value:.0f} B"


def operations(value: float) -> str:
    """Returns a number of operations as text, such as 12.3 TFLOP."""
    for unit, power in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{value:.0f} FLOP"


_FORMATTERS: dict[Format, Callable[[float], str]] = {
    "percent": percent,
    "points": points,
    "count": count,
    "number": number,
    "seconds": seconds,
    "bytes": size,
    "operations": operations,
    "rate": rate,
}


def format_cell(value: Cell, form: Format) -> str:
    """Returns the text of a table cell; empty for an unknown value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or form not in _FORMATTERS:
        return visible(value) if value != "" else ""
    return _FORMATTERS[form](value)


def capitalized(text: str) -> str:
    """Returns a text with a capital first letter, and the others as they are, such as `Log loss`, `mAP`."""
    word = text.split(" ")[0]
    return text if word != word.lower() else f"{text[:1].upper()}{text[1:]}"


def join_names(names: list[str]) -> str:
    """Returns a list of names as text: `a`, `a and b`, or `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
