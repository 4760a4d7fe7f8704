"""How fast is a training step, and what does unfreezing cost?

    python benchmarks/train_step.py --peer torch

Times steps on live images for three selectors: the head, the last stage, everything; against timm in PyTorch
eager mode (channels_last) with the same parameters trainable, and BatchNorm in inference mode in both. The
optimizer is AdamW in both. A second row trains from cached features, as `fit` does. Our command line tells
the C library to keep freed memory; the peer is timed without that, as its users run it, and with it.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contest import contest, report

MODEL = "efficientnet_lite0"
CLASSES = 10
TRAINS = {"head": "head", "last stage": "from_('blocks.15')", "everything": "all_()"}


def batch_of(count: int, size: int) -> dict[str, np.ndarray]:
    """Noise with random labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return {"image": images, "label": rng.integers(0, CLASSES, count).astype(np.int32)}


def ours(trains: str, count: int, size: int, cached: bool) -> Callable[[], Any]:
    """The compiled step of a phase."""
    import jax

    from transfer_jax.features import make_prefix
    from transfer_jax.freezing import Phase, boundary, labels, partition
    from transfer_jax.freezing.labels import trainable_blocks
    from transfer_jax.freezing.rates import PhaseRates
    from transfer_jax.memory import keep_freed_memory
    from transfer_jax.models import create_model
    from transfer_jax.models.functional import split, with_training
    from transfer_jax.training.optimizer import make_optimizer
    from transfer_jax.training.state import TrainState
    from transfer_jax.training.step import Forward, StepOptions, make_train_step
    from transfer_jax.weights import find_spec, load_pretrained

    keep_freed_memory()
    spec = find_spec(MODEL)
    model = create_model(MODEL, CLASSES, abstract_backbone=True)
    load_pretrained(model, spec)
    model.eval()
    graphdef, params, stats = split(model)
    phase = Phase(name="phase", train=trains, epochs=1, learning_rate=1e-5)
    labelled = labels(params, phase.selector, model.backbone.block_names)
    trainable, frozen = partition(params, labelled)
    end = boundary(labelled, model.backbone.block_names)
    start = end if cached else None
    batch = batch_of(count, size)
    if start is not None:
        prefix = jax.jit(make_prefix(graphdef, start, spec.preprocessing, np.float32))
        features = np.asarray(prefix({**params, **stats}, batch["image"]))
        batch = {"features": features, "label": batch["label"]}
    forward = Forward(
        graphdef=with_training(graphdef, {**params, **stats}, trainable_blocks(labelled), norm="frozen"),
        start=start,
        prefix=None if cached else end,
        preprocessing=spec.preprocessing,
    )
    optimizer = make_optimizer(phase, labelled)
    options = StepOptions(class_weights=np.ones(CLASSES, np.float32))
    step = jax.jit(make_train_step(forward, optimizer, options), donate_argnums=0)
    state = TrainState.create(trainable, {}, optimizer, ema=False)
    rates = PhaseRates(phase, labelled, 100).at(0)

    def call() -> None:
        nonlocal state
        state, metrics = step(state, {**frozen, **stats}, batch, rates)
        jax.block_until_ready((state, metrics))

    return call


def torch_eager(trains: str, count: int, size: int, keep: bool) -> Callable[[], Any]:
    """The same step with timm; `keep` tells the C library to keep freed memory."""
    import torch
    from peers import timm_network

    from transfer_jax.memory import keep_freed_memory

    if keep:
        keep_freed_memory()
    network = timm_network(MODEL, CLASSES)  # BatchNorm in inference mode, as ours
    names = {
        "head": ("classifier",),
        "last stage": ("classifier", "blocks.6", "conv_head", "bn2"),
        "everything": ("",),
    }[trains]
    for name, parameter in network.named_parameters():
        parameter.requires_grad = name.startswith(names)
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-5)
    batch = batch_of(count, size)
    images = torch.from_numpy(batch["image"])
    label = torch.from_numpy(batch["label"]).long()

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        x = ((images.float() - 127) / 128).permute(0, 3, 1, 2)
        torch.nn.functional.cross_entropy(network(x), label).backward()
        optimizer.step()

    return call


def main() -> None:
    """Reads the command line and times each selector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", choices=("none", "torch"), default="none")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    given = (arguments.batch, arguments.size)
    rows = []
    for name, selector in TRAINS.items():
        contenders = {"transfer_jax": functools.partial(ours, selector, *given, False)}
        if name != "everything":
            contenders["transfer_jax, cached features"] = functools.partial(ours, selector, *given, True)
        if arguments.peer == "torch":
            contenders["torch eager channels_last"] = functools.partial(torch_eager, name, *given, False)
            contenders["the same, freed memory kept"] = functools.partial(torch_eager, name, *given, True)
        timings = contest(contenders, rounds=arguments.rounds)
        base = timings["transfer_jax"].median
        rows += [
            {
                "trains": name,
                "program": program,
                "images/s": arguments.batch / timing.median,
                "ms a step": 1e3 * timing.median,
                "start-up s": timing.prepare,
                "ours, live, is": timing.median / base,
            }
            for program, timing in timings.items()
        ]
    report(f"{MODEL}, {given[1]} px, batch {given[0]}, float32, training step", rows, arguments.out)


if __name__ == "__main__":
    main()
