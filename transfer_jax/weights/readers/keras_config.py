"""The names of a Keras model's layers, read from its `config.json` without building the model."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from transfer_jax.weights.readers.errors import CheckpointError

_MAX_BYTES = 100_000_000


class Layer(NamedTuple):
    """A layer's name, and its nested layers."""

    name: str
    inside: "Layers"


Layers = Mapping[str, Layer]
"""The layers of a model by class and number, such as `conv2d_1`, as in the file of its weights."""


def read_layers(raw: bytes) -> Layers:
    """Returns the layers that a `config.json` describes.

    Raises:
        CheckpointError: if the content is too large or is not valid JSON.
    """
    if len(raw) > _MAX_BYTES:
        raise CheckpointError(
            f"config.json has {len(raw)} bytes, more than the {_MAX_BYTES} allowed for a model's description"
        )
    try:
        return _layers(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"damaged: config.json is invalid: {error}") from error


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
    """Returns a class's name as Keras writes it into files: `depthwise_conv2d` for `DepthwiseConv2D`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
