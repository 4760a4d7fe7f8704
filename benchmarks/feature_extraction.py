"""How fast is the frozen base, and how much memory does an extraction take?

    python benchmarks/feature_extraction.py --peer torch
    python benchmarks/feature_extraction.py --memory

The first times uint8 images to pooled features, batch by batch, against timm in PyTorch eager mode
(channels_last, inference mode, the same network, both with as many threads as there are cores). Our command
line tells the C library to keep freed memory; the peer is timed without that, as its users run it, and with
it. The second runs `extract` over a folder of images and over one four times as large, each in a process of
its own.
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

MODEL = "efficientnet_lite0"


def random_images(batch: int, size: int) -> np.ndarray:
    """Noise, uint8 `(batch, size, size, 3)`."""
    return np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def ours(batch: int, size: int, precision: str) -> Callable[[], Any]:
    """The prefix that `extract` runs."""
    import jax
    import jax.numpy as jnp

    from transfer_jax.features import make_prefix
    from transfer_jax.memory import keep_freed_memory
    from transfer_jax.models import create_model
    from transfer_jax.models.functional import split
    from transfer_jax.weights import find_spec, load_pretrained

    keep_freed_memory()
    spec = find_spec(MODEL)
    model = create_model(MODEL, 2, abstract_backbone=True)
    load_pretrained(model, spec)
    model.eval()
    graphdef, params, stats = split(model)
    prefix = jax.jit(make_prefix(graphdef, "pre_logits", spec.preprocessing, jnp.dtype(precision)))
    arrays, images = {**params, **stats}, random_images(batch, size)
    return lambda: jax.block_until_ready(prefix(arrays, images))


def torch_eager(batch: int, size: int, precision: str, keep: bool) -> Callable[[], Any]:
    """The same network in timm, to pooled features; `keep` tells the C library to keep freed memory."""
    import torch
    from peers import timm_network

    from transfer_jax.memory import keep_freed_memory

    if keep:
        keep_freed_memory()
    network = timm_network(MODEL, 0)
    images = torch.from_numpy(random_images(batch, size))
    low = precision == "bfloat16"

    def call() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=low):
            return network(((images.float() - 127) / 128).permute(0, 3, 1, 2))

    return call


def speed(arguments: argparse.Namespace) -> None:
    """Times the forward pass."""
    given = (arguments.batch, arguments.size, arguments.precision)
    contenders = {"transfer_jax": functools.partial(ours, *given)}
    if arguments.peer == "torch":
        contenders["torch eager channels_last"] = functools.partial(torch_eager, *given, False)
        contenders["the same, freed memory kept"] = functools.partial(torch_eager, *given, True)
    timings = contest(contenders, rounds=arguments.rounds)
    base = next(iter(timings.values())).median
    rows = [
        {
            "program": name,
            "images/s": arguments.batch / timing.median,
            "ms a batch": 1e3 * timing.median,
            "fastest": 1e3 * min(timing.calls),
            "slowest": 1e3 * max(timing.calls),
            "start-up s": timing.prepare,
            "ours is": timing.median / base,
        }
        for name, timing in timings.items()
    ]
    title = f"{MODEL}, {given[1]} px, batch {given[0]}, {given[2]}, frozen forward"
    report(title, rows, arguments.out)


def memory(arguments: argparse.Namespace) -> None:
    """Measures the peak memory of `extract` for 1x and 4x the images, in turn, several times."""
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
    report(f"{MODEL}, extract, peak memory of the process", rows, arguments.out)


def write_images(folder: Path, count: int) -> None:
    """Noise in two classes, as JPEG files of 256 x 256 pixels."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / "ab"[index % 2] / f"{index:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(path)


def extract_folder(folder: Path) -> None:
    """Extracts the features of a folder anew, and prints the peak memory of this process in KiB."""
    from transfer_jax.cli import main

    with tempfile.TemporaryDirectory() as workdir:
        main(["extract", "--images", str(folder), "--workdir", workdir])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", choices=("none", "torch"), default="none")
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
