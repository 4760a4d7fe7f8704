"""Keras on its JAX backend."""

import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from originals.original import CLASSES, Original
from transfer_jax.weights.readers import read_weights


def import_keras() -> Any:
    """Returns the package, on JAX unless the environment sets another backend."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    return keras


class KerasOriginal(Original):
    """A network of Keras; its modules are layers, and its input size is fixed."""

    @property
    def package(self) -> str:
        return "keras"

    def randomized(self, name: str, size: int) -> Any:
        keras = import_keras()
        keras.utils.set_random_seed(0)
        network, draw = self.make(name, size), np.random.default_rng(0)
        for key, variable in _variables(network):
            shape, kind = variable.shape, key.rsplit("/", 1)[-1]
            if kind == "gamma":
                variable.assign(draw.uniform(0.5, 1.5, shape))
            elif kind in ("beta", "bias"):
                variable.assign(draw.normal(0, 0.1, shape))
        norms = [x for x in _layers(network) if isinstance(x, keras.layers.BatchNormalization)]
        for norm in norms:
            norm.momentum = 0.0
        if norms:
            noise = draw.normal(size=(4, size, size, 3)).astype(np.float32) * _scale(network)
            trainable = [variable.value for variable in network.trainable_variables]
            rest = [variable.value for variable in network.non_trainable_variables]
            run = jax.jit(functools.partial(network.stateless_call, training=True))
            for variable, value in zip(
                network.non_trainable_variables, run(trainable, rest, noise)[1], strict=True
            ):
                variable.assign(value)
        for norm in norms:
            mean, var = (np.asarray(x.value) for x in (norm.moving_mean, norm.moving_variance))
            norm.moving_mean.assign(mean + draw.normal(0, 0.1, mean.shape) * np.sqrt(var))
            norm.moving_variance.assign((var + 0.2 * var.mean()) * draw.uniform(0.8, 1.25, var.shape))
        return network

    def outputs(self, network: Any, pixels: np.ndarray, modules: Mapping[str, str]) -> dict[str, np.ndarray]:
        keras = import_keras()
        wanted = {block: _output(network, layer) for block, layer in modules.items()}
        if len(network.output.shape) == 2:
            wanted["logits"] = network.output
        found = keras.Model(network.input, wanted).predict(pixels * _scale(network), verbose=0)
        return {block: np.asarray(array) for block, array in found.items()}

    def state(self, network: Any) -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "network.weights.h5")
            network.save_weights(path)
            return dict(read_weights(path))

    def load(self, network: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        left = {key: array for key, array in arrays.items() if not key.endswith(_NOT_PARAMETERS)}
        for key, variable in _variables(network):
            if not key.endswith(_NOT_PARAMETERS):
                if key not in left:
                    raise RuntimeError(f"nothing for {key}")
                variable.assign(np.zeros(variable.shape))
                variable.assign(left.pop(key))
        if left:
            raise RuntimeError(f"no place for {', '.join(left)}")
        return network


_NOT_PARAMETERS = (
    "seed_generator_state",
    "normalization/mean",
    "normalization/variance",
    "normalization/count",
)


def _scale(network: Any) -> np.float32:
    """Returns the factor for normalized pixels of networks that begin with a division by 255."""
    rescales = any(isinstance(layer, import_keras().layers.Rescaling) for layer in network.layers)
    return np.float32(255 if rescales else 1)


def _output(network: Any, layer: str) -> Any:
    """Returns the output of a layer; `>` after its name means that of the next layer, `<` its input."""
    found = network.get_layer(layer.rstrip("<>"))
    found = network.layers[network.layers.index(found) + layer.endswith(">")]
    node = found._inbound_nodes[0]  # what a network inside of the network has for input is not from here
    return node.input_tensors[0] if layer.endswith("<") else node.outputs[0]


def _layers(network: Any) -> Iterator[Any]:
    for layer in network.layers:
        yield from _layers(layer) if hasattr(layer, "layers") else (layer,)


def _variables(network: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for layer in network.layers:
        if hasattr(layer, "layers"):
            yield from _variables(layer, f"{prefix}{layer.name}/")
        else:
            for variable in layer.weights:
                name = "gamma" if layer.name.endswith("layer_scale") else variable.name  # has none there
                yield f"{prefix}{layer.name}/{name}", variable


def application(kind: str, size: int, *, top: bool = True, **options: Any) -> Any:
    """Returns the network `kind` of `keras.applications` with random weights, for square images of a size.

    Layers without a name of their own are numbered from 0.
    """
    import_keras().utils.clear_session()
    if top:
        options |= {"classes": CLASSES, "classifier_activation": None}
    made = getattr(import_keras().applications, kind)
    return made(weights=None, include_top=top, input_shape=(size, size, 3), **options)
