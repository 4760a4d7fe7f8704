"""Networks of someone else: Flax NNX, Flax Linen and a plain function, each with a layer to replace."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax import Preprocessing, own_model
from transfer_jax.models.family import HALF

SMALL = Preprocessing(image_size=16, crop_fraction=1.0, interpolation="bilinear", mean=HALF, std=HALF)


class Stage(nnx.Module):
    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(inputs, outputs, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(nnx.relu(self.norm(self.conv(x))))


class NnxNetwork(nnx.Module):
    """Stages in a list named `features`, which is also a name of `Backbone`."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.features = nnx.List([Stage(3, 6, rngs), Stage(6, 8, rngs), Stage(8, 12, rngs)])
        self.fc = nnx.Linear(12, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for stage in self.features:
            x = stage(x)
        return self.fc(x.mean((1, 2)))


class LinenNetwork(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for width in (6, 8, 12):
            x = nn.Conv(width, (3, 3), strides=2)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(10)(x.mean((1, 2)))


def two_branches():
    """Returns a function whose features at a boundary are several arrays, with its parameters."""
    keys = jax.random.split(jax.random.key(3), 4)
    shapes = {"stem": (48, 8), "left": (8, 6), "right": (8, 6), "join": (12, 10)}
    params = {
        name: {"kernel": jax.random.normal(key, shape) / 3}
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }

    def function(params, state, batch, key):
        x = batch["image"].reshape(len(batch["image"]), -1, 48)
        x = jax.nn.relu(x @ params["stem"]["kernel"]).mean(1)
        left, right = (jnp.tanh(x @ params[name]["kernel"]) for name in ("left", "right"))
        return jnp.concatenate([left, right], -1) @ params["join"]["kernel"]

    return function, params, None


def nnx_model():
    return own_model(NnxNetwork(nnx.Rngs(0)), head="fc", preprocessing=SMALL)


def linen_model():
    module = LinenNetwork()
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), False)
    return own_model(module, variables, head="Dense_0", preprocessing=SMALL, train=False)


def function_model():
    return own_model(two_branches(), head="join", preprocessing=SMALL)


MAKERS = {"nnx": nnx_model, "linen": linen_model, "function": function_model}
