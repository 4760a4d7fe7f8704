"""How much time does a loop of one's own, on cached features, add to the compiled step?

    python benchmarks/own_loop.py --out own_loop.json

A researcher's loop with its own loss, its own chain of optimizers and its own data trains the top of
EfficientNet-Lite0 on cached features; the number of its lines is reported. Then the same compiled step is
called as often on one prepared batch, and nothing is read back until the end. Rounds are interleaved; the
ratio is that of the medians of steps per second. Compile time and extraction are apart.
"""

import argparse
import inspect
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from contest import report

import transfer_jax as tj
from transfer_jax.malloc import keep_freed_memory

SELECTORS = {"the head": "head", "from blocks.15": "top(2)", "from blocks.11": "top(6)"}
CLASSES = 5


def research(
    images: np.ndarray, labels: np.ndarray, selector: str, batch_size: int, folder: str
) -> Iterator[Any]:
    """Trains forever; yields the step, its arguments and its metrics."""
    model = tj.create_model("efficientnet_lite0", CLASSES)
    model.eval()
    function, params, model_state = tj.nnx_function(model, "image")
    data = {"image": images, "label": labels}
    example = {name: array[:batch_size] for name, array in data.items()}
    blocks = tj.blocks_by_depth(function, params, example, state=model_state)
    labelled = tj.labels(params, selector, blocks)
    split = tj.split_frozen(function, params, labelled, example, state=model_state)
    trainable, frozen = tj.partition(params, labelled)
    cache = tj.cache_features(split, frozen, data, folder, state=model_state)

    def loss(logits: jax.Array, batch: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], CLASSES), 0.1)
        correct = logits.argmax(-1) == batch["label"]
        return optax.softmax_cross_entropy(logits, targets).mean(), {"accuracy": correct.mean()}

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(),
        optax.add_decayed_weights(1e-2, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)),
        optax.scale_by_learning_rate(optax.cosine_decay_schedule(1e-4, 10_000)),
    )
    step = jax.jit(tj.make_train_step(loss, optimizer, split), donate_argnums=0)
    state = tj.TrainState.create(trainable, optimizer, model_state)
    rows = grain.MapDataset.range(len(cache)).seed(0).shuffle().repeat().batch(batch_size)
    batches = rows.map(cache.gather).to_iter_dataset(grain.ReadOptions(1, prefetch_buffer_size=4))
    for number, batch in enumerate(batches):
        state, metrics = step(state, frozen, batch, batch)
        if number % 20 == 0:
            print(f"\rstep {number}, loss {metrics['loss']:.3f}", end="")
        yield step, (state, frozen, batch, batch), metrics


def loop_seconds(loop: Iterator[Any], steps: int) -> float:
    """Returns the seconds of steps of the loop."""
    started = time.perf_counter()
    for _ in range(steps):
        _, arguments, _ = next(loop)
    jax.block_until_ready(arguments[0])
    return time.perf_counter() - started


def bare_seconds(step: Callable[..., Any], arguments: tuple[Any, ...], steps: int) -> float:
    """Returns the seconds of steps of the compiled program on one batch."""
    state, frozen, features, batch = arguments
    state, features, batch = jax.tree.map(jnp.copy, state), *jax.device_put((features, batch))
    jax.block_until_ready((state, features, batch))
    started = time.perf_counter()
    for _ in range(steps):
        state, _ = step(state, frozen, features, batch)
    jax.block_until_ready(state)
    return time.perf_counter() - started


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of a round of one contender")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(arguments.images, arguments.size, arguments.size, 3)).astype(np.float32)
    labels = np.arange(arguments.images, dtype=np.int32) % CLASSES
    lines = len(inspect.getsource(research).splitlines())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, selector in SELECTORS.items():
            loop = research(images, labels, selector, arguments.batch, scratch)
            for _ in range(3):
                step, given, _ = next(loop)
            steps = max(3, int(3 * arguments.seconds / bare_seconds(step, given, 3)))
            seconds: dict[str, list[float]] = {"loop": [], "step": []}
            for _ in range(arguments.rounds):
                seconds["loop"].append(loop_seconds(loop, steps))
                _, given, _ = next(loop)
                seconds["step"].append(bare_seconds(step, given, steps))
            own, bare = (statistics.median(each) for each in seconds.values())
            rows.append(
                {
                    "trains": name,
                    "steps": steps,
                    "lines": lines,
                    "loop, ms a step": 1e3 * own / steps,
                    "step alone, ms": 1e3 * bare / steps,
                    "ratio of speeds": bare / own,
                    "lowest": min(b / a for a, b in zip(*seconds.values(), strict=True)),
                    "highest": max(b / a for a, b in zip(*seconds.values(), strict=True)),
                }
            )
            loop.close()
    setting = f"{arguments.size} px, batch {arguments.batch}, float32, {arguments.rounds} rounds"
    report(f"EfficientNet-Lite0, {setting}", rows, arguments.out, packages=("jax", "optax", "grain"))


if __name__ == "__main__":
    main()
