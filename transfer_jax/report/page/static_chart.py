"""Charts as SVG images, which a page shows before its scripts run, without scripts, and in print."""

import json
import logging
import zlib
from collections.abc import Mapping
from typing import Any

import vl_convert

from transfer_jax.report.page.chart_style import CONFIG
from transfer_jax.report.page.compact_svg import compact_svg

_LOG = logging.getLogger(__name__)
WIDTH = 360
"""The width of an image in pixels: that of a chart on a phone; a column of paper is slightly narrower."""
_FONT = "DejaVu Sans, Verdana, sans-serif"
"""Wide fonts, which measure texts: those that a page has instead are rarely wider."""


def static_svg(spec: Mapping[str, Any]) -> str:
    """Returns the SVG element of a chart; empty, with a warning, if the chart cannot be drawn.

    Colours stay variables of the style sheet, so the image suits light pages, dark pages and print.

    Args:
        spec: The Vega-Lite specification, with its data.
    """
    size = {"width": WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}}
    text = json.dumps({**spec, **size, "config": {**CONFIG, "font": _FONT}}, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()  # Names of files may have bytes that are no text.
    try:
        drawn = vl_convert.vegalite_to_svg(text)
    except ValueError as error:
        _LOG.warning(
            "A chart of the report is drawn by its script only: %s", " ".join(str(error).split())[:300]
        )
        return ""
    return compact_svg(drawn, f"c{zlib.crc32(text.encode()):08x}-")
