"""How long does it take until the end of the first training step?

    python benchmarks/startup.py --out startup.json

Measures from the start of a process: imports, EfficientNet-Lite0 with its weights, compilation, and a step
of 32 images, of the head and of the whole network. Ours with an empty compilation cache, and with one that
holds the programs, as in the second run on a machine; timm in PyTorch, eager and with `torch.compile` and
an empty cache, both without reading weights. Every figure is the median of several processes, which run in
turn.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL, BATCH, SIZE, RATE = "efficientnet_lite0", 32, 224, 1e-5
SELECTORS = {"head": "head", "everything": "all_()"}


def ours(trains: str) -> None:
    """Runs a step of ours."""
    from peers import Given
    from train_step import CLASSES, our_step

    from transfer_jax.malloc import keep_freed_memory
    from transfer_jax.models import create_model
    from transfer_jax.weights import find_spec, load_pretrained

    keep_freed_memory()
    model = create_model(MODEL, CLASSES, abstract_backbone=True)
    load_pretrained(model, find_spec(MODEL))
    model.eval()
    given = Given(MODEL, {}, BATCH, SIZE, "float32")
    our_step(model, given, trains=SELECTORS[trains], cached=False)()


def timm_step(trains: str, compiled: bool) -> None:
    """Runs a step of timm's network."""
    import timm
    import torch

    network: Any = timm.create_model(f"tf_{MODEL}", num_classes=10)
    network.eval().to(memory_format=torch.channels_last)
    network.requires_grad_(trains == "everything")
    network.get_classifier().requires_grad_(True)
    optimizer = torch.optim.AdamW([each for each in network.parameters() if each.requires_grad], lr=RATE)
    run = torch.compile(network) if compiled else network
    images = torch.rand(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    torch.nn.functional.cross_entropy(run(images), torch.zeros(BATCH, dtype=torch.long)).backward()
    optimizer.step()


PROGRAMS: dict[str, Callable[[str], None]] = {
    "empty cache": ours,
    "filled cache": ours,
    "torch eager": lambda trains: timm_step(trains, compiled=False),
    "torch.compile": lambda trains: timm_step(trains, compiled=True),
}


def seconds(program: str, trains: str, folder: str) -> float:
    """Returns the time of a process until the end of its step, with caches in a folder."""
    caches = {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": folder,
    }
    command = [
        sys.executable,
        __file__,
        "--program",
        program,
        "--trains",
        trains,
        "--began",
        str(time.time()),
    ]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **caches}
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trains", nargs="+", choices=tuple(SELECTORS), default=tuple(SELECTORS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--program", choices=tuple(PROGRAMS), help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.program:
        PROGRAMS[arguments.program](arguments.trains[0])
        print(time.time() - arguments.began)
        return
    from contest import report

    rows: list[dict[str, Any]] = []
    for trains in arguments.trains:
        found: dict[str, list[float]] = {name: [] for name in PROGRAMS}
        for _ in range(arguments.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for name in PROGRAMS:
                    found[name].append(seconds(name, trains, folder))
        rows.append({"trains": trains} | {name: statistics.median(each) for name, each in found.items()})
    title = f"Seconds to the end of the first step, batch {BATCH}, {SIZE} px"
    report(title, rows, arguments.out, packages=("jax", "flax", "torch", "timm"))


if __name__ == "__main__":
    main()
