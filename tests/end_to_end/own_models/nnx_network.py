"""An NNX network of somebody else, with "pretrained" weights and a data set."""

import numpy as np
from flax import nnx


class Block(nnx.Module):
    """A residual block with BatchNorm and dropout."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.linear = nnx.Linear(width, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return x + self.dropout(self.linear(nnx.relu(self.norm(x))))


class Network(nnx.Module):
    """A residual network on tables of numbers."""

    def __init__(self, rngs: nnx.Rngs):
        self.embed = nnx.Linear(40, 24, rngs=rngs)
        self.layers = nnx.List([Block(24, rngs) for _ in range(4)])
        self.out = nnx.Linear(24, 3, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


def pretrained() -> Network:
    """Returns the network."""
    return Network(nnx.Rngs(0))


def measurements() -> list[dict]:
    """Returns 48 examples of three classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(48, dtype=np.int32) % 3
    return [{"x": rng.normal(label, 1, 40).astype(np.float32), "y": label} for label in labels]
