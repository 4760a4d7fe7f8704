"""What do our training steps need on a chip of a TPU, beside those of plain Flax?

    python benchmarks/tpu_peers.py --topologies v5e:2x2 v6e:2x2 v5p:2x2x1 --out tpu_peers.json

Compiles the steps with the compiler for TPUs, on any machine (`transfer_jax[pods]`); nothing runs. The peers
are the networks of `tpu_peer_steps.py`, with the same batch, precision and optimizer. A step of the head
alone is also compared with a bare forward pass: inference, nothing that trains. Every figure is for one chip
and from the compiled program (`planning/tpu_program.py`):

- HBM GB: bytes to and from the memory, by the layouts of operands and results;
- Mcycles: the sum of the compiler's estimates and of `kernel Mcycles`;
- kernel Mcycles: cycles of kernels of Pallas, our estimate from the cost that they declare;
- unestimated: the number of instructions without either, such as transfers between chips;
- peak GB: the memory that the program needs;
- MB exchanged: bytes sent to other chips, with rings;
- TFLOP: matrix products and convolutions, two for each multiply-add.

Steps that `--out` already contains are not compiled again. `--texts` keeps the compiled programs, which
`tpu_attribution.py` explains.
"""

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from contest import print_rows, read_rows, write_report
from tpu_peer_steps import NETWORKS, peer_step

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.distributed.sharding import Strategy
from transfer_jax.planning.chips import CHIPS
from transfer_jax.planning.topology import topology_devices, without_tpu
from transfer_jax.planning.tpu_program import TpuProgram
from transfer_jax.runs.resolve import resolve
from transfer_jax.training.background_compile import compiled_step, step_batch_shapes
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.run import Run

CLASSES = 1000


def our_run(model: str, trains: str, images: int, devices: list[Any]) -> Run:
    """Returns our run of one phase, with shapes instead of arrays."""
    convolutional = model.startswith("resnet")
    phase = Phase(
        name="step",
        train=trains,
        epochs=1,
        learning_rate=1e-3,
        cache="off",
        optimizer="sgd" if convolutional else "adamw",
        norm="train" if convolutional and trains == "all_()" else "frozen",
    )
    config = TrainConfig(
        images="none", model=model, weights="none", precision="bfloat16", schedule=Schedule((phase,))
    )
    count = images * len(devices)
    labels = np.arange(4 * max(count, CLASSES)) % CLASSES
    pixels = np.zeros((len(labels), 1, 1), np.uint8)
    resolved = resolve(config, dataset=from_arrays(pixels, labels, tuple(map(str, range(CLASSES)))))
    return resolved.with_settings(batch_size=count).abstract_run(Strategy.of("mesh", devices=devices))


def our_step(model: str, trains: str, images: int, devices: list[Any]) -> Any:
    """Compiles our training step for all devices."""
    run = our_run(model, trains, images, devices)
    return compiled_step(run, run.parts(0)).run


def our_forward(model: str, images: int, devices: list[Any]) -> Any:
    """Compiles our forward pass for all devices, as evaluations and predictions run it."""
    run = our_run(model, "head", images, devices)
    batch = run.strategy.batch(step_batch_shapes(run, run.parts(0)))
    inputs = {name: each for name, each in batch.items() if name in INPUTS}
    return PhasePrograms(run, run.parts(0)).compiled("evaluate", run.arrays, inputs).run


def programs(model: str, trains: str, images: int, devices: list[Any]) -> dict[str, Callable[[], Any]]:
    """Returns a function for each program that compiles it; it returns None if there is no such step."""
    found: dict[str, Callable[[], Any]] = {
        "transfer_jax": lambda: our_step(model, trains, images, devices),
        "Flax Linen and Optax": lambda: peer_step(model, trains, images, devices),
    }
    if trains == "head":
        found["transfer_jax, bare forward"] = lambda: our_forward(model, images, devices)
        found["Flax Linen, bare forward"] = lambda: peer_step(model, "forward", images, devices)
    return found


def figures(compiled: Any, topology: str, texts: Path | None, name: str) -> dict[str, float]:
    """Returns the figures of a compiled program, and keeps its text in a folder."""
    text = compiled.as_text()
    if texts is not None:
        texts.mkdir(parents=True, exist_ok=True)
        (texts / f"{name}.txt").write_text(text)
    cost = TpuProgram(text, CHIPS[topology.partition(":")[0]]).cost
    return {
        "HBM GB": cost.hbm_bytes / 1e9,
        "Mcycles": (cost.cycles + cost.kernel_cycles) / 1e6,
        "kernel Mcycles": cost.kernel_cycles / 1e6,
        "unestimated": cost.without_cycles,
        "peak GB": compiled.memory_analysis().peak_memory_in_bytes / 1e9,
        "MB exchanged": cost.exchanged / 1e6,
        "TFLOP": cost.flops / 1e12,
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--topologies", nargs="+", default=["v5e:2x2", "v6e:2x2", "v5p:2x2x1"])
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--trains", nargs="+", default=["head", "all_()"], help="selectors")
    parser.add_argument("--images", type=int, default=32, help="images for each chip and step")
    parser.add_argument("--only", choices=("ours", "peers"), help="compile these programs alone")
    parser.add_argument("--texts", type=Path, help="folder for the texts of the compiled programs")
    parser.add_argument("--out", type=Path, help="JSON file to write, and to take finished rows from")
    options = parser.parse_args()
    without_tpu()
    title = f"A step of {options.images} images a chip, bfloat16, {datetime.date.today()}"
    packages = ("jax", "jaxlib", "libtpu", "flax", "optax")
    done, rows = read_rows(options.out), []
    for topology in options.topologies:
        devices = topology_devices(topology)
        for model in options.models:
            for trains in options.trains:
                for program, compile_step in programs(model, trains, options.images, devices).items():
                    if options.only and (options.only == "ours") != program.startswith("transfer_jax"):
                        continue
                    step = {"program": program, "network": model, "topology": topology, "trains": trains}
                    step["images"] = options.images
                    row = next((row for row in done if step.items() <= row.items()), None)
                    if row is None:
                        started = time.perf_counter()
                        compiled = compile_step()
                        if compiled is None:
                            continue
                        seconds = time.perf_counter() - started
                        name = "_".join(map(str, step.values())).replace(":", "_").replace(", ", "_")
                        row = {**step, **figures(compiled, topology, options.texts, name)}
                        row["compiled in s"] = seconds
                        print(row, flush=True)
                    rows.append(row)
                    if options.out is not None:
                        others = [each for each in done if each not in rows]
                        write_report(title, rows + others, options.out, packages=packages)
                jax.clear_caches()
    print_rows(title, rows)


if __name__ == "__main__":
    main()
