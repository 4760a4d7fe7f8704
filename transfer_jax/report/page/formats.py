"""How figures are written: short, and the same everywhere."""

import math
from collections.abc import Callable

from transfer_jax.report.page.elements import Cell, Format


def percent(value: float) -> str:
    """A share of one, as 74.1%."""
    return f"{value:.1%}"


def count(value: float) -> str:
    """A whole number, as 3,413,024."""
    return f"{value:,.0f}"


def number(value: float) -> str:
    """Four digits, as 0.6931 or 1.2e-05."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def rate(value: float) -> str:
    """A learning rate, as 1e-3; 0 is a frozen block's."""
    return "0" if value == 0 else f"{value:.2g}"


def seconds(value: float) -> str:
    """A time, as 0.3 s, 42 s, 3 min 05 s or 2 h 07 min."""
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(value: float) -> str:
    """Bytes, as 12.3 MB."""
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{value:.0f} B"


def operations(value: float) -> str:
    """Operations, as 12.3 TFLOP."""
    for unit, power in (("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)):
        if value >= power:
            return f"{value / power:.3g} {unit}"
    return f"{value:.0f} FLOP"


_WRITTEN: dict[Format, Callable[[float], str]] = {
    "percent": percent,
    "count": count,
    "number": number,
    "seconds": seconds,
    "bytes": size,
    "operations": operations,
    "rate": rate,
}


def format_cell(value: Cell, form: Format) -> str:
    """A cell as a table shows it; empty for what is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or form not in _WRITTEN:
        return str(value)
    return _WRITTEN[form](value)


def join_names(names: list[str]) -> str:
    """Names as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
