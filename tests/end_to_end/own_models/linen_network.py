"""A Linen network of somebody else, with "pretrained" variables and a data set."""

import flax.linen as nn
import jax
import numpy as np


class Network(nn.Module):
    """A convolutional network with BatchNorm and dropout."""

    classes: int = 3

    @nn.compact
    def __call__(self, x, train: bool, move_statistics: bool = False):
        x = nn.Conv(8, (3, 3), strides=2, name="stem")(x)
        for width in (8, 12, 16):
            y = nn.BatchNorm(use_running_average=not move_statistics)(x)
            x = nn.Conv(width, (3, 3), strides=2)(nn.relu(y))
        x = nn.Dropout(0.3, deterministic=not train)(x.mean((1, 2)))
        return nn.Dense(self.classes, name="classifier")(x)


def pretrained():
    """Returns the network and its variables."""
    network = Network()
    return network, network.init(jax.random.key(0), np.zeros((1, 32, 32, 3)), train=False)


def photographs():
    """Returns 48 images of three classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(48, dtype=np.int32) % 3
    images = rng.normal(size=(48, 32, 32, 3)) + labels[:, None, None, None]
    return {"image": images.astype(np.float32), "label": labels}
