"""How Sphinx builds the site: `make docs`, into build/site. Every warning is an error, and notebooks are run.

The pages are Markdown that is read on GitHub, too. Nothing is fetched, neither now nor by who reads the site.
"""

import os
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject, PyXRefRole  # pyright: ignore[reportPrivateImportUsage]

from transfer_jax import __version__

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # for the notebooks, wherever the site is built

project = "transfer_jax"
author = "The authors of transfer_jax"
release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"transfer_jax {release}"
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 3  # links such as `pods.md#several-processes`, as on GitHub

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_show_tb = True
nb_execution_timeout = 600
nb_merge_streams = True

# Signatures with a parameter a line; what a docstring says of the parameters comes below.
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
napoleon_use_ivar = True
napoleon_use_rtype = False
default_role = "name_or_code"

ELSEWHERE = {
    "../CHANGELOG.md": "changelog.md",
    "../benchmarks/README.md": "benchmarks.md",
    "../configs/launch/README.md": "clusters.md",
}
"""Files that pages link to on GitHub, and the pages of the site that show them."""


def name_or_code(_: str, raw: str, text: str, line: int, inliner: Any, *rest: Any, **options: Any) -> Any:
    """What stands between single backticks in a docstring: a link if it is a name of ours, else code."""
    del rest, options
    if re.fullmatch(r"[A-Za-z_][\w.]*", text):
        return PyXRefRole()("py:obj", raw, text, line, inliner)
    return [nodes.literal(raw, text)], []


def readable_defaults(*given: Any) -> tuple[str | None, str | None]:
    """Lets signatures of dataclasses be parsed: a default that a function makes is no Python."""
    *_, signature, returns = given
    return signature and signature.replace("<factory>", "..."), returns


def link_to_pages(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lets links to files outside of docs/ lead to the pages that show them."""
    del app, docname
    for file, page in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({file})", f"]({page})")


def setup(app: Sphinx) -> None:
    """Is called by Sphinx."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.add_role("name_or_code", name_or_code)
    app.connect("source-read", link_to_pages)
    app.connect("autodoc-process-signature", readable_defaults)
