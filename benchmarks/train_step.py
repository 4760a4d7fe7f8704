"""How fast is a training step, how much memory does it need, and what does unfreezing cost?

    python benchmarks/train_step.py --peers torch compile flax keras --out train_step.json

Times steps of four networks on images for three selectors: the head, the last stage, the whole network. A
second row trains from cached features, as `fit` does. All use AdamW, and BatchNorm in inference mode.
Peers, which train the same:

* `torch`: timm in PyTorch eager mode, channels_last, with the same arrays. Our command line makes the C
  library keep freed memory; this peer is timed without that, as its users run it, and with it.
* `compile`: the same with `torch.compile`, with freed memory kept.
* `flax`: our network in a loop as users of Flax write it, with `optax.multi_transform` and `set_to_zero`.
* `keras`: Keras on JAX, for the networks that it has, with its own initial parameters.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contest import Build, contest, report
from peer_steps import CLASSES, KERAS, RATE, batch_of, flax_step, keras_step, torch_step
from peers import MODELS, Given, our_network, timm_arrays

from transfer_jax.malloc import keep_freed_memory
from transfer_jax.models import Classifier
from transfer_jax.models.registry import variant_of

PACKAGES = ("jax", "flax", "torch", "timm", "keras")
PEERS = ("torch", "compile", "flax", "keras")
TRAINS = ("head", "last stage", "everything")
LAST_STAGE = {
    "efficientnet_lite0": ("blocks.15", ("blocks.6", "conv_head", "bn2", "classifier")),
    "mobilenet_v2": ("blocks.6.0", ("blocks.6", "conv_head", "bn2", "classifier")),
    "resnet50": ("layer4.0", ("layer4", "fc")),
    "vit_small_patch16_224": ("blocks.9", ("blocks.9", "blocks.10", "blocks.11", "norm", "head")),
}
"""The first block of each last stage, or of a transformer's last quarter, and its modules in timm."""


def selectors(name: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns our selectors, each with the prefixes of the same parameters in timm."""
    first, modules = LAST_STAGE[name]
    found = ("head", modules[-1:]), (f"from_({first!r})", modules), ("all_()", ("",))
    return dict(zip(TRAINS, found, strict=True))


def ours(given: Given, *, trains: str, cached: bool) -> Callable[[], Any]:
    """Returns the compiled step of a phase."""
    keep_freed_memory()
    return our_step(our_network(given, CLASSES), given, trains=trains, cached=cached)


def our_step(model: Classifier, given: Given, *, trains: str, cached: bool) -> Callable[[], Any]:
    """Returns the compiled step of a phase of a network; it does not use the arrays of the comparison."""
    import jax
    import jax.numpy as jnp

    from transfer_jax.features import make_prefix
    from transfer_jax.freezing import Phase, boundary, labels, partition
    from transfer_jax.freezing.labels import trainable_blocks
    from transfer_jax.freezing.learning_rates import PhaseRates
    from transfer_jax.models.flat_arrays import split, with_training
    from transfer_jax.tasks import SingleLabel
    from transfer_jax.training.forward import Forward
    from transfer_jax.training.optimizer import make_optimizer
    from transfer_jax.training.phase_step import StepOptions, make_phase_step
    from transfer_jax.training.state import TrainState

    dtype = jnp.dtype(given.precision)
    preprocessing = variant_of(given.name).preprocessing
    graphdef, params, stats = split(model)
    phase = Phase(name="phase", train=trains, epochs=1, learning_rate=RATE)
    labelled = labels(params, phase.selector, model.backbone.block_names)
    trainable, frozen = partition(params, labelled)
    end = boundary(labelled, model.backbone.block_names)
    start = end if cached else None
    batch = batch_of(given)
    if start is not None:
        prefix = jax.jit(make_prefix(graphdef, start, preprocessing, dtype))
        features = np.asarray(prefix({**params, **stats}, {"image": batch["image"]}))
        batch = {"features": features, "label": batch["label"]}
    batch = jax.device_put(batch)
    forward = Forward(
        graphdef=with_training(graphdef, {**params, **stats}, trainable_blocks(labelled), norm="frozen"),
        start=start,
        prefix=None if cached else end,
        preprocessing=preprocessing,
        dtype=dtype,
        prefix_dtype=dtype,
    )
    optimizer = make_optimizer(phase, labelled)
    task = SingleLabel(tuple(map(str, range(CLASSES))))
    options = StepOptions(task=task, class_weights=np.ones(CLASSES, np.float32))
    step = jax.jit(make_phase_step(forward, optimizer, options), donate_argnums=0)
    state = TrainState.create(trainable, optimizer, {}, ema=False)
    rates = PhaseRates(phase, labelled, 100).at(0)

    def call() -> None:
        nonlocal state
        state, metrics = step(state, {**frozen, **stats}, batch, rates)
        jax.block_until_ready((state, metrics))

    return call


def main() -> None:
    """Reads the command line and times each selector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help=", ".join(PEERS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help=", ".join(MODELS))
    parser.add_argument("--trains", nargs="+", choices=TRAINS, default=TRAINS, help=", ".join(TRAINS))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.models:
        arrays = timm_arrays(name, arguments.size)
        given = Given(name, arrays, arguments.batch, arguments.size, arguments.precision)
        for trains in arguments.trains:
            selector, modules = selectors(name)[trains]
            rows += rows_of(name, trains, contenders_of(given, selector, modules, arguments.peers), arguments)
    title = f"{arguments.size} px, batch {arguments.batch}, {arguments.precision}, training step"
    report(title, rows, arguments.out, packages=PACKAGES)


def contenders_of(
    given: Given, selector: str, modules: tuple[str, ...], peers: list[str]
) -> dict[str, Build]:
    """Returns the programs: ours on images, ours on cached features if a part is frozen, and the peers."""
    run = functools.partial(ours, given, trains=selector)
    found: dict[str, Build] = {"transfer_jax": functools.partial(run, cached=False)}
    if modules != ("",):
        found["transfer_jax, cached features"] = functools.partial(run, cached=True)
    if "torch" in peers:
        found["torch eager"] = functools.partial(torch_step, given, modules, keep=False)
        found["torch eager, freed memory kept"] = functools.partial(torch_step, given, modules, keep=True)
    if "compile" in peers:
        found["torch.compile"] = functools.partial(torch_step, given, modules, keep=True, compiled=True)
    if "flax" in peers:
        found["a plain Flax loop"] = functools.partial(flax_step, given, selector)
    if "keras" in peers and given.name in KERAS:
        found["Keras on JAX"] = functools.partial(keras_step, given, modules)
    return found


def rows_of(
    name: str, trains: str, contenders: dict[str, Build], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Returns a row for each program."""
    timings = contest(contenders, rounds=arguments.rounds)
    base = timings["transfer_jax"].median
    return [
        {
            "network": name,
            "trains": trains,
            "program": program,
            "images/s": arguments.batch / timing.median,
            "ms a step": 1e3 * timing.median,
            "start-up s": timing.prepare,
            "peak GB": timing.peak / 1e9,
            "ours on images is": timing.median / base,
        }
        for program, timing in timings.items()
    ]


if __name__ == "__main__":
    main()
