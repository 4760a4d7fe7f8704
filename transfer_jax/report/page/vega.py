"""The library that draws charts in a browser: Vega-Lite, as the package `vl-convert-python` carries it."""

import base64
import contextlib
import functools
import gzip
import importlib.metadata
import os
from pathlib import Path

import vl_convert

from transfer_jax.storage.atomic_write import write_text


@functools.cache
def compressed_vega() -> str:
    """The scripts of Vega, Vega-Lite and Vega-Embed, compressed, in base64.

    A browser unpacks it in a moment, and a report is a third as large. To put it together takes a while, so
    that it is kept in `~/.cache/transfer_jax`, by its version.
    """
    version = "-".join(
        (importlib.metadata.version("vl-convert-python"), vl_convert.get_vegalite_versions()[-1])
    )
    path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    path = path / "transfer_jax" / f"vega-{version}.gz.b64"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return path.read_text()
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    with contextlib.suppress(OSError):  # A home that cannot be written costs the time again, and no more.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, packed)
    return packed
