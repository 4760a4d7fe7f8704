"""The Python code that creates a network of another library and loads an exported file."""

import dataclasses
from typing import Any, Literal

Runtime = Literal["torch", "keras", "onnxruntime", "function"]
"""The kind of object that the code creates, which decides how it is called; see `run_exported.py`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A model that is exported.

    Attributes:
        model: Name of the network.
        outputs: Number of outputs of the head.
        image_size: Side of the images in pixels.
        file: Name of the file.
        hidden: Widths of hidden layers in the head.
        taps: Whether the head reads the outputs of all blocks.
    """

    model: str
    outputs: int
    image_size: int
    file: str
    hidden: tuple[int, ...] = ()
    taps: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constructor:
    """Code that creates a network of another library and loads an exported file.

    Attributes:
        code: Lines of Python that assign the network to `model`; the current folder is that of the file.
            Empty if the network's name in the library is unknown here.
        module: Module that must be installed.
        runtime: Kind of the object `model`.
        channels_first: Whether images are `(batch, 3, height, width)`; otherwise channels are last.
        normalized: Whether the network takes normalized images; otherwise pixels in 0..255.
        note: A sentence on differences from the network here; empty if it computes the same.
    """

    code: str
    module: str
    runtime: Runtime
    channels_first: bool = True
    normalized: bool = True
    note: str = ""


def call(function: str, *positional: Any, **named: Any) -> str:
    """Returns the text of a call of a function with Python literals."""
    texts = [*map(_literal, positional), *(f"{name}={_literal(value)}" for name, value in named.items())]
    return f"{function}({', '.join(texts)})"


def _literal(value: Any) -> str:
    """Returns a literal as ruff formats it."""
    if isinstance(value, str) and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
