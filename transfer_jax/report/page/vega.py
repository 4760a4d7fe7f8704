"""The Vega-Lite library that draws charts in a browser, from the package `vl-convert-python`."""

import base64
import contextlib
import functools
import gzip
import importlib.metadata
import os
from pathlib import Path

import vl_convert

from transfer_jax.storage.atomic_write import write_text
from transfer_jax.user_cache import user_cache


@functools.cache
def compressed_vega() -> str:
    """Returns the scripts of Vega, Vega-Lite and Vega-Embed, compressed by gzip, in base64.

    Compression makes a report a third as large, and browsers unpack it quickly. Bundling the scripts is slow,
    so the result is cached by version in `~/.cache/transfer_jax`.
    """
    version = "-".join(
        (importlib.metadata.version("vl-convert-python"), vl_convert.get_vegalite_versions()[-1])
    )
    folder = os.environ.get("XDG_CACHE_HOME")
    path = (Path(folder, "transfer_jax") if folder else user_cache("")) / f"vega-{version}.gz.b64"
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8")
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    packed = base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
    with contextlib.suppress(OSError):  # Without a writable cache the bundle is made again each time.
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, packed)
    return packed
