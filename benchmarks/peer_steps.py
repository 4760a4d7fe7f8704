"""Training steps as users of other libraries write them."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from peers import Given, normalize, our_network, timm_network

from transfer_jax.malloc import keep_freed_memory
from transfer_jax.models.registry import variant_of

CLASSES = 10
RATE = 1e-5
KERAS = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50"}
_IN_KERAS = {
    "blocks.6": ("block_16_",),
    "conv_head": ("Conv_1",),
    "layer4": ("conv5_",),
}
"""Prefixes of the layer names in Keras by timm module; a BatchNorm belongs to the convolution before it."""


def batch_of(given: Given) -> dict[str, np.ndarray]:
    """Returns noise with random labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (given.count, given.size, given.size, 3), dtype=np.uint8)
    return {"image": images, "label": rng.integers(0, CLASSES, given.count).astype(np.int32)}


def torch_step(
    given: Given, trains: tuple[str, ...], *, keep: bool, compiled: bool = False
) -> Callable[[], Any]:
    """Returns a step with timm.

    Args:
        given: The network and the batch.
        trains: Prefixes of the names of trainable parameters.
        keep: Makes the C library keep freed memory.
        compiled: Uses `torch.compile`.
    """
    import torch

    if keep:
        keep_freed_memory()
    network = timm_network(given, CLASSES)  # BatchNorm in inference mode, as ours
    for key, parameter in network.named_parameters():
        parameter.requires_grad = key.startswith(trains)
    optimizer = torch.optim.AdamW([each for each in network.parameters() if each.requires_grad], lr=RATE)
    run = torch.compile(network) if compiled else network
    batch, low = batch_of(given), given.precision == "bfloat16"
    images, label = torch.from_numpy(batch["image"]), torch.from_numpy(batch["label"]).long()

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = torch.nn.functional.cross_entropy(run(normalize(given.name, images)), label)
        loss.backward()
        optimizer.step()

    return call


def flax_step(given: Given, selector: str) -> Callable[[], Any]:
    """Returns a step with Flax: the gradient of all parameters, of which optax applies the selected ones."""
    import jax
    import jax.numpy as jnp
    import optax

    from transfer_jax.freezing import Phase, labels, partition
    from transfer_jax.models.flat_arrays import Arrays, cast, merge, split

    keep_freed_memory()
    model = our_network(given, CLASSES)
    params: Arrays
    graphdef, params, stats = split(model)
    phase = Phase(name="phase", train=selector, epochs=1, learning_rate=RATE)
    trained, _ = partition(params, labels(params, phase.selector, model.backbone.block_names))
    optimizer = optax.multi_transform(
        {"train": optax.adamw(RATE), "freeze": optax.set_to_zero()},
        {path: "train" if path in trained else "freeze" for path in params},
    )
    state, dtype = optimizer.init(params), jnp.dtype(given.precision)
    preprocessing, batch = variant_of(given.name).preprocessing, batch_of(given)

    def loss(params: Any, batch: Any) -> jax.Array:
        network = merge(graphdef, cast({**params, **stats}, dtype))
        logits = network(preprocessing.normalize(batch["image"]).astype(dtype)).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    def call() -> None:
        nonlocal params, state
        params, state, value = step(params, state, batch)
        jax.block_until_ready((params, value))

    return call


def keras_step(given: Given, trains: tuple[str, ...]) -> Callable[[], Any]:
    """Returns a step with Keras on JAX, from initial parameters."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    keep_freed_memory()
    if given.precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    shape = (given.size, given.size, 3)
    make = getattr(keras.applications, KERAS[given.name])
    base = make(weights=None, include_top=False, input_shape=shape, pooling="avg")
    if trains != ("",):
        begins = tuple(prefix for module in trains for prefix in _IN_KERAS.get(module, ()))
        for layer in base.layers:
            layer.trainable = layer.name.startswith(begins)
    inputs = keras.Input(shape, dtype="uint8")
    x = base(keras.layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    network = keras.Model(inputs, keras.layers.Dense(CLASSES, dtype="float32")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.AdamW(RATE), loss)
    batch = batch_of(given)
    return lambda: network.train_on_batch(batch["image"], batch["label"])
