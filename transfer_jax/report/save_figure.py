"""Figures saved as files, without a display."""

from pathlib import Path
from typing import TYPE_CHECKING

from transfer_jax.storage.atomic_write import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SUFFIXES = (".png", ".svg")


def check_suffix(path: Path) -> None:
    """Checks the suffix of a figure's file.

    Raises:
        ValueError: If the suffix is neither `.png` nor `.svg`.
    """
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} must end in {' or '.join(_SUFFIXES)}")


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure to a PNG or SVG file; a file that exists is replaced at the end.

    Raises:
        ValueError: If the suffix is neither `.png` nor `.svg`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    check_suffix(path)
    if path.suffix == ".png":
        write_atomically(path, FigureCanvasAgg(figure).print_png)
    else:
        write_atomically(path, FigureCanvasSVG(figure).print_svg)
