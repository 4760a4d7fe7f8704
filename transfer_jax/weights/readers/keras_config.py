"""The names of a Keras model's layers, from the description that is saved with it; nothing of it is built."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from transfer_jax.weights.readers.errors import CheckpointError

_MAX_BYTES = 100_000_000


class Layer(NamedTuple):
    """A layer's name, and the layers inside of it."""

    name: str
    inside: "Layers"


Layers = Mapping[str, Layer]
"""The layers of a model by class and number, as in `conv2d_1`: what the file of its weights knows them by."""


def read_layers(raw: bytes) -> Layers:
    """The layers that a `config.json` describes.

    Raises:
        CheckpointError: if it is no description of a model.
    """
    if len(raw) > _MAX_BYTES:
        raise CheckpointError(f"the description of the model has {len(raw)} bytes")
    try:
        return _layers(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the description of the model is damaged: {error}") from error


def _layers(model: Any) -> Layers:
    found: dict[str, Layer] = {}
    counts: Counter[str] = Counter()
    for layer in _list(_dict(_dict(model).get("config")).get("layers")):
        kind, name = _dict(layer).get("class_name"), _dict(_dict(layer).get("config")).get("name")
        if isinstance(kind, str) and isinstance(name, str):
            kind = _snake_case(kind)
            number, counts[kind] = counts[kind], counts[kind] + 1
            found[f"{kind}_{number}" if number else kind] = Layer(name, _layers(layer))
    return found


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _snake_case(name: str) -> str:
    """A class's name as Keras writes it into files: `DepthwiseConv2D` is `depthwise_conv2d`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
