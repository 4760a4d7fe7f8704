"""How long does loading a model from its file take, and how much memory, compared with timm?

    python benchmarks/load_weights.py --rounds 7

timm writes a file of random weights, as safetensors and as `.pth`. Then every program reads it in its own
process, in turn, in several rounds; the file is in the page cache. The tables show medians of

- ready: seconds from the name of the network to the model with every parameter in memory, as float32, after
  the imports and without a forward pass or its compilation;
- process: seconds of the whole process, imports included;
- grew: the growth of the peak memory of the process (VmHWM) after the imports, in MB, and as a multiple of
  the file; peak: that peak, imports included.

The programs:

- transfer_jax: `create_model(…, abstract_backbone=True, abstract_head=True)`, then `load_pretrained`. The
  parameters own their memory: the file may change afterwards.
- transfer_jax, new head: the same without the file's classifier, and with a random one for 10 classes.
- timm load_checkpoint: `create_model(…)`, then `load_checkpoint`. The parameters own their memory here, too.
- timm checkpoint_path, timm pretrained: `create_model(…, checkpoint_path=…)` and `create_model(…,
  pretrained=True, pretrained_cfg_overlay=dict(file=…))`.
- timm new head: the latter for 10 classes.
- torch meta, assign: the network of timm on the device `meta`, then `load_state_dict(…, assign=True)`,
  which no function of timm does. With safetensors its parameters are views of the mapped file, which must
  not change; every page of them is read.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import print_rows, write_report

MODELS = ("resnet152", "vit_large_patch16_224")
FILES = ("model.safetensors", "model.pth")


def ours(classes: int) -> Callable[[str, str], Callable[[], Any]]:
    """Loads the model of this package, with the file's classifier if it has 1000 classes."""
    whole = classes == 1000

    def prepare(model: str, path: str) -> Callable[[], Any]:
        import jax

        from transfer_jax import create_model, load_pretrained
        from transfer_jax.models.flat_arrays import split
        from transfer_jax.weights import find_spec

        def load() -> None:
            network = create_model(model, classes, abstract_backbone=True, abstract_head=whole)
            load_pretrained(network, find_spec(model, path), head=whole)
            _, params, stats = split(network)
            jax.block_until_ready((params, stats))

        return load

    return prepare


def peer(how: str, classes: int = 1000) -> Callable[[str, str], Callable[[], Any]]:
    """Loads the model of timm."""

    def prepare(model: str, path: str) -> Callable[[], Any]:
        import torch
        from timm import create_model
        from timm.models import load_checkpoint, load_state_dict

        def load() -> Any:
            if how == "load_checkpoint":
                network = create_model(model, num_classes=classes)
                load_checkpoint(network, path)
            elif how == "checkpoint_path":
                network = create_model(model, num_classes=classes, checkpoint_path=path)
            elif how == "pretrained":
                here = {"file": path, "custom_load": False}
                network = create_model(
                    model, num_classes=classes, pretrained=True, pretrained_cfg_overlay=here
                )
            else:
                with torch.device("meta"):
                    network = create_model(model, num_classes=classes)
                network.load_state_dict(load_state_dict(path), assign=True)
            for array in network.state_dict().values():  # one value of each page of 4096 bytes
                array.flatten()[::1024].sum().item() if array.is_contiguous() else array.sum().item()
            return network

        return load

    return prepare


PROGRAMS = {
    "transfer_jax": ours(1000),
    "timm load_checkpoint": peer("load_checkpoint"),
    "timm checkpoint_path": peer("checkpoint_path"),
    "timm pretrained": peer("pretrained"),
    "torch meta, assign": peer("assign"),
    "transfer_jax, new head": ours(10),
    "timm new head": peer("pretrained", 10),
}


def work(program: str, model: str, path: str) -> dict[str, float]:
    """Runs a program in this process, and returns seconds and bytes."""
    load = PROGRAMS[program](model, path)
    before, started = _most(), time.perf_counter()
    kept = load()
    seconds = time.perf_counter() - started
    del kept
    return {"ready": seconds, "grew": _most() - before, "peak": _most()}


def _most() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def write(model: str, folder: Path) -> None:
    """Writes random weights in both formats of timm, in its own process."""
    import timm
    import torch
    from safetensors.torch import save_file

    state = timm.create_model(model).state_dict()
    save_file(state, folder / FILES[0])
    torch.save(state, folder / FILES[1])


def measure(model: str, file: Path, rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each program; the first round is a warm-up."""
    found: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
    for index in range(rounds + 1):
        for program, results in found.items():
            command = [sys.executable, __file__, "--work", program, "--model", model, "--file", str(file)]
            started = time.perf_counter()
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = json.loads(printed.splitlines()[-1])
            if index:
                results.append({**result, "process": time.perf_counter() - started})
    size = file.stat().st_size
    medians = {
        program: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for program, results in found.items()
    }
    base = {False: medians["transfer_jax"], True: medians["transfer_jax, new head"]}
    return [
        {
            "program": program,
            "ready s": f"{median['ready']:.2f}",
            "process s": f"{median['process']:.1f}",
            "grew MB": f"{median['grew'] / 1e6:.0f}",
            "of the file": f"{median['grew'] / size:.2f}",
            "peak MB": f"{median['peak'] / 1e6:.0f}",
            "our time": f"{base['new head' in program]['ready'] / median['ready']:.2f}x",
            "our memory": f"{base['new head' in program]['grew'] / median['grew']:.2f}x",
            "rounds": " ".join(f"{result['ready']:.2f}" for result in found[program]),
        }
        for program, median in medians.items()
    ]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=MODELS, help="one of the networks; default: both")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(arguments.model, arguments.write)
    elif arguments.work:
        print(json.dumps(work(arguments.work, arguments.model, arguments.file)))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Measures every network and format, and prints a table of each."""
    rows: list[dict[str, Any]] = []
    for model in (arguments.model,) if arguments.model else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--write", folder, "--model", model]
            subprocess.run(command, check=True)
            for name in FILES:
                found = measure(model, Path(folder, name), arguments.rounds)
                shown = [{key: row[key] for key in row if key != "rounds"} for row in found]
                print_rows(f"{model}, {name}, {datetime.date.today()}", shown)
                rows += [{"model": model, "file": name, **row} for row in found]
    if arguments.out is not None:
        packages = ("jax", "flax", "numpy", "torch", "timm", "safetensors")
        write_report("From file to model", rows, arguments.out, packages=packages)


if __name__ == "__main__":
    main()
