"""How fast is the frozen base, and how much memory does an extraction need?

    python benchmarks/feature_extraction.py --peer torch
    python benchmarks/feature_extraction.py --peer torch --precision bfloat16 --models resnet50
    python benchmarks/feature_extraction.py --memory

The first command times uint8 images to pooled features, batch by batch, against timm in PyTorch eager mode
(channels_last, inference mode, the same arrays, both with one thread for each core; for bfloat16 the peer
runs under autocast). Our command line makes the C library keep freed memory; the peer is timed without
that, as its users run it, and with it. The last command runs `extract` over a folder of images and over one
four times as large, each in its own process.
"""

import argparse
import functools
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contest import contest, report
from peer_steps import batch_of
from peers import MODELS, Given, normalize, our_network, timm_arrays, timm_network

from transfer_jax.malloc import keep_freed_memory
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of

PACKAGES = ("jax", "torch", "timm")


def ours(given: Given) -> Callable[[], Any]:
    """Returns the prefix that `extract` runs."""
    import jax
    import jax.numpy as jnp

    from transfer_jax.features import make_prefix

    keep_freed_memory()
    graphdef, params, stats = split(our_network(given, 2))
    preprocessing = variant_of(given.name).preprocessing
    prefix = jax.jit(make_prefix(graphdef, "pre_logits", preprocessing, jnp.dtype(given.precision)))
    arrays, images = {**params, **stats}, batch_of(given)["image"]
    return lambda: jax.block_until_ready(prefix(arrays, {"image": images}))


def torch_eager(given: Given, *, keep: bool) -> Callable[[], Any]:
    """Returns the same network in timm, up to pooled features; with `keep`, glibc keeps freed memory."""
    import torch

    if keep:
        keep_freed_memory()
    network = timm_network(given, 0)
    images = torch.from_numpy(batch_of(given)["image"])
    low = given.precision == "bfloat16"

    def call() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return network(normalize(given.name, images))

    return call


def speed(arguments: argparse.Namespace) -> None:
    """Times the forward pass of each network."""
    rows = []
    for name in arguments.models:
        arrays = timm_arrays(name, arguments.size)
        given = Given(name, arrays, arguments.batch, arguments.size, arguments.precision)
        contenders = {"transfer_jax": functools.partial(ours, given)}
        if arguments.peer == "torch":
            contenders["torch eager channels_last"] = functools.partial(torch_eager, given, keep=False)
            contenders["the same, freed memory kept"] = functools.partial(torch_eager, given, keep=True)
        timings = contest(contenders, rounds=arguments.rounds)
        base = next(iter(timings.values())).median
        rows += [
            {
                "network": name,
                "program": program,
                "images/s": arguments.batch / timing.median,
                "ms a batch": 1e3 * timing.median,
                "fastest": 1e3 * min(timing.calls),
                "slowest": 1e3 * max(timing.calls),
                "start-up s": timing.prepare,
                "ours is": timing.median / base,
            }
            for program, timing in timings.items()
        ]
    title = f"{arguments.size} px, batch {arguments.batch}, {arguments.precision}, frozen forward"
    report(title, rows, arguments.out, packages=PACKAGES)


def memory(arguments: argparse.Namespace) -> None:
    """Measures the peak memory of `extract` for once and four times the images, in turn, several times."""
    counts = (arguments.images, 4 * arguments.images)
    peaks: dict[int, list[float]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            write_images(Path(folder, str(count)), count)
        for _ in range(arguments.rounds):
            for count in counts:
                command = [sys.executable, __file__, "--extract", str(Path(folder, str(count)))]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                peaks[count].append(int(printed.split()[-1]) / 1024)
    base = statistics.median(peaks[counts[0]])
    rows = [
        {
            "images": count,
            "peak MiB": statistics.median(found),
            "lowest": min(found),
            "highest": max(found),
            "to the first": statistics.median(found) / base,
        }
        for count, found in peaks.items()
    ]
    report("EfficientNet-Lite0, extract, peak memory of the process", rows, arguments.out)


def write_images(folder: Path, count: int) -> None:
    """Writes noise in two classes as JPEG files of 256 x 256 pixels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(path)


def extract_folder(folder: Path) -> None:
    """Extracts the features of a folder, and prints the peak memory of this process in KiB."""
    from transfer_jax.cli import main

    with tempfile.TemporaryDirectory() as workdir:
        main(["extract", "--images", str(folder), "--workdir", workdir])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", choices=("none", "torch"), default="none")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help=", ".join(MODELS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument("--images", type=int, default=500, help="images of the smaller folder for --memory")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--extract", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.extract:
        extract_folder(arguments.extract)
    elif arguments.memory:
        memory(arguments)
    else:
        speed(arguments)


if __name__ == "__main__":
    main()
