"""How much time does a loop of one's own, on cached features, add to the compiled step?

    python benchmarks/own_loop.py --out own_loop.json

A researcher's loop with its own loss, its own chain of optimizers and its own data trains the top of
EfficientNet-Lite0 on cached features; the number of its lines is reported. Then the same compiled step is
called as often on one prepared batch, and nothing is read back until the end. Rounds are interleaved; the
ratio is that of the medians of steps per second. The ratio of the processor time of this process, with the
threads that read the cache, depends less on what else the machine does. Compile time and extraction are
apart.
"""

import argparse
import inspect
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

SELECTORS = ("head", "top(2)", "top(6)")
CLASSES = 5


def research(data: dict[str, np.ndarray], selector: str, batch_size: int, folder: str) -> Iterator[Any]:
    """Trains forever; yields the step, its arguments and its metrics."""
    model = tj.create_model("efficientnet_lite0", CLASSES)
    model.eval()
    function, params, model_state = tj.nnx_function(model, "image")
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

    def rows(number: int) -> np.ndarray:  # Faster than `shuffle` of grain on few examples.
        epoch, batch = divmod(number, len(cache) // batch_size)
        order = np.random.default_rng((0, epoch)).permutation(len(cache))
        return order[batch * batch_size :][:batch_size]

    batches = grain.MapDataset.range(10**6).map(rows).map(cache.gather)
    for number, batch in enumerate(batches.to_iter_dataset(grain.ReadOptions(1, 4))):
        state, metrics = step(state, frozen, batch, batch)
        if number % 20 == 0:
            print(f"\rstep {number}, loss {metrics['loss']:.3f}", end="")
        yield step, (state, frozen, batch, batch), metrics


def now() -> np.ndarray:
    """Returns the time, and the processor time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def loop_seconds(loop: Iterator[Any], steps: int) -> np.ndarray:
    """Returns the seconds of steps of the loop; see `now`."""
    started, arguments = now(), (None,)
    for _ in range(steps):
        _, arguments, _ = next(loop)
    jax.block_until_ready(arguments[0])
    return now() - started


def bare_seconds(step: Callable[..., Any], arguments: tuple[Any, ...], steps: int) -> np.ndarray:
    """Returns the seconds of steps of the compiled program on one batch; see `now`."""
    state, frozen, features, batch = arguments
    state, features, batch = jax.tree.map(jnp.copy, state), *jax.device_put((features, batch))
    jax.block_until_ready((state, features, batch))
    started = now()
    for _ in range(steps):
        state, _ = step(state, frozen, features, batch)
    jax.block_until_ready(state)
    return now() - started


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
    data = {"image": images, "label": np.arange(arguments.images, dtype=np.int32) % CLASSES}
    lines = len(inspect.getsource(research).splitlines())
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for selector in SELECTORS:
            loop = research(data, selector, arguments.batch, scratch)
            for _ in range(2):
                next(loop)
            step, given, _ = next(loop)
            steps = max(3, int(3 * arguments.seconds / bare_seconds(step, given, 3)[0]))
            seconds: dict[str, list[np.ndarray]] = {"loop": [], "step": []}
            for _ in range(arguments.rounds):
                seconds["loop"].append(loop_seconds(loop, steps))
                _, given, _ = next(loop)
                seconds["step"].append(bare_seconds(step, given, steps))
            own, bare = (np.median(each, axis=0) for each in seconds.values())
            ratios = [float(b[0] / a[0]) for a, b in zip(*seconds.values(), strict=True)]
            rows.append(
                {
                    "trains": selector,
                    "features": "x".join(map(str, given[2]["features"].shape[1:])),
                    "steps": steps,
                    "lines": lines,
                    "loop, ms a step": float(1e3 * own[0] / steps),
                    "step alone, ms": float(1e3 * bare[0] / steps),
                    "ratio of speeds": float(bare[0] / own[0]),
                    "lowest": min(ratios),
                    "highest": max(ratios),
                    "ratio of processor time": float(bare[1] / own[1]),
                }
            )
            loop.close()  # type: ignore[attr-defined]
    setting = f"{arguments.size} px, batch {arguments.batch}, float32, {arguments.rounds} rounds"
    report(f"EfficientNet-Lite0, {setting}", rows, arguments.out, packages=("jax", "optax", "grain"))


if __name__ == "__main__":
    main()
