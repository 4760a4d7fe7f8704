"""Training steps for TPUs as users of plain Flax Linen and Optax write them, with jit and a mesh.

The networks are the vision transformer of Dosovitskiy et al. 2021 (arXiv:2010.11929), as in big_vision, and
ResNet v1.5 of He et al. 2016, as in Flax's ImageNet example. They compute in bfloat16 with parameters in
float32. They are written for this comparison, without scan and remat.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

CLASSES = 1000
DTYPE = jnp.bfloat16


class Block(nn.Module):
    """A block of a vision transformer."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        y = nn.LayerNorm(dtype=DTYPE)(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=DTYPE)(y, y)
        y = nn.LayerNorm(dtype=DTYPE)(x)
        y = nn.gelu(nn.Dense(4 * width, dtype=DTYPE)(y))
        return x + nn.Dense(width, dtype=DTYPE)(y)


class VisionTransformer(nn.Module):
    """A vision transformer with a class token, for patches of 16 x 16 pixels."""

    width: int
    depth: int
    heads: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, (16, 16), (16, 16), "VALID", dtype=DTYPE, name="stem")(images)
        x = x.reshape(len(x), -1, self.width)
        token = self.param("token", nn.initializers.zeros, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)).astype(DTYPE), x], axis=1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:])).astype(DTYPE)
        for _ in range(self.depth):
            x = Block(self.heads)(x)
        x = nn.LayerNorm(dtype=DTYPE)(x)[:, 0]
        return nn.Dense(CLASSES, dtype=DTYPE, name="head")(x)


class Bottleneck(nn.Module):
    """A residual block of ResNet v1.5."""

    width: int
    stride: int
    inference: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False, dtype=DTYPE)
        norm = functools.partial(nn.BatchNorm, self.inference, momentum=0.9, dtype=DTYPE)
        strides = (self.stride, self.stride)
        y = nn.relu(norm()(conv(self.width, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.width, (3, 3), strides)(y)))
        y = norm(scale_init=nn.initializers.zeros)(conv(4 * self.width, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.width, (1, 1), strides)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet v1.5; in inference, BatchNorm uses its running statistics."""

    depths: tuple[int, ...]
    inference: bool = False

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = nn.Conv(64, (7, 7), (2, 2), [(3, 3), (3, 3)], use_bias=False, dtype=DTYPE)(images)
        x = nn.relu(nn.BatchNorm(self.inference, momentum=0.9, dtype=DTYPE)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, depth in enumerate(self.depths):
            for block in range(depth):
                x = Bottleneck(64 * 2**stage, 2 if stage and not block else 1, self.inference)(x)
        return nn.Dense(CLASSES, dtype=DTYPE, name="head")(x.mean((1, 2)))


NETWORKS: dict[str, tuple[nn.Module, optax.GradientTransformation]] = {
    "vit_base_patch16_224": (VisionTransformer(768, 12, 12), optax.adamw(1e-3)),
    "vit_large_patch16_224": (VisionTransformer(1024, 24, 16), optax.adamw(1e-3)),
    "resnet50": (ResNet((3, 4, 6, 3)), optax.sgd(0.1, momentum=0.9)),
}
"""The peer of each network of ours, and its optimizer."""


def peer_step(model: str, trains: str, images: int, devices: list[Any]) -> jax.stages.Compiled | None:
    """Compiles the peer's training step, data parallel over all devices.

    Args:
        model: A key of `NETWORKS`.
        trains: `all_()` for all parameters, `head` for the head alone, `forward` for a forward pass and the
            loss without any gradient. None is returned for other selectors.
        images: Number of images for each device.
        devices: The devices of a topology.
    """
    if trains not in ("all_()", "head", "forward"):
        return None
    network, optimizer = NETWORKS[model]
    if isinstance(network, ResNet) and trains != "all_()":
        network = network.clone(inference=True)
    mesh = Mesh(devices, ("data",))
    whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    count = images * len(devices)
    batch = {
        "image": jax.ShapeDtypeStruct((count, 224, 224, 3), jnp.uint8, sharding=split),
        "label": jax.ShapeDtypeStruct((count,), jnp.int32, sharding=split),
    }
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    params, stats = variables["params"], {name: each for name, each in variables.items() if name != "params"}
    trainable = {"head": params["head"]} if trains == "head" else params
    frozen = {name: each for name, each in params.items() if name not in trainable}
    moments = () if trains == "forward" else jax.eval_shape(optimizer.init, trainable)
    state = (trainable, stats, moments)
    step = _step(network, optimizer, gradient=trains != "forward")
    compiled = jax.jit(step, donate_argnums=0)
    return compiled.lower(_placed(state, whole), _placed(frozen, whole), batch).compile()


def _step(network: nn.Module, optimizer: optax.GradientTransformation, *, gradient: bool) -> Callable:
    """Returns the step: from trained parameters, statistics and moments to new ones and the loss."""

    def loss_of(trainable: Any, frozen: Any, stats: Any, batch: Any) -> tuple[jax.Array, Any]:
        images = (batch["image"].astype(DTYPE) - 127.5) / 127.5
        variables = {"params": {**frozen, **trainable}, **stats}
        logits, updated = network.apply(variables, images, mutable=[*stats])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), batch["label"])
        return losses.mean(), updated

    def step(state: Any, frozen: Any, batch: Any) -> Any:
        trainable, stats, moments = state
        if not gradient:
            loss, stats = loss_of(trainable, frozen, stats, batch)
            return (trainable, stats, moments), loss
        (loss, stats), grads = jax.value_and_grad(loss_of, has_aux=True)(trainable, frozen, stats, batch)
        updates, moments = optimizer.update(grads, moments, trainable)
        return (optax.apply_updates(trainable, updates), stats, moments), loss

    return step


def _placed(tree: Any, sharding: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
