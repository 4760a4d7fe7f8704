"""The HTML of a page: one file with its style, scripts and data, which loads nothing from the network."""

import functools
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from transfer_jax.report.names import visible
from transfer_jax.report.page.chart_style import CONFIG
from transfer_jax.report.page.elements import Chart, Charts, Link, Page
from transfer_jax.report.page.formats import format_cell
from transfer_jax.report.page.static_chart import static_svg
from transfer_jax.report.page.vega import compressed_vega
from transfer_jax.storage.atomic_write import write_text


def write_page(page: Page, path: Path) -> Path:
    """Writes a page as an HTML file, and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(page))
    return path


def render(page: Page) -> str:
    """Returns the HTML of a page."""
    parts = [part for section in page.sections for part in section.parts]
    has_charts = any(isinstance(part, Chart | Charts) for part in parts)
    return (
        _environment()
        .get_template("page.html")
        .render(page=page, theme=CONFIG, vega=compressed_vega() if has_charts else "")
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["format_cell"] = format_cell
    environment.filters["visible"] = visible
    environment.tests["link"] = lambda cell: isinstance(cell, Link)
    environment.globals["asset"] = _asset
    environment.globals["static_svg"] = static_svg
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _asset(name: str) -> Markup:
    """Returns the unescaped content of a file in `templates`."""
    return Markup(resources.files(__package__ or "").joinpath("templates", name).read_text(encoding="utf-8"))
