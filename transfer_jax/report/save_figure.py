"""Figures saved as files, without a display."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_CANVASES = {".png": FigureCanvasAgg, ".svg": FigureCanvasSVG}


def check_suffix(path: Path) -> None:
    """Checks the suffix of a figure's file.

    Raises:
        ValueError: If the suffix is neither `.png` nor `.svg`.
    """
    if path.suffix not in _CANVASES:
        raise ValueError(f"{path} must end in {' or '.join(_CANVASES)}")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure to a PNG or SVG file.

    Raises:
        ValueError: If the suffix is neither `.png` nor `.svg`.
    """
    check_suffix(path)
    getattr(_CANVASES[path.suffix](figure), f"print_{path.suffix[1:]}")(str(path))
