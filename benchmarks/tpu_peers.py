"""What do our training steps need on a chip of a TPU, beside those of plain Flax?

    python benchmarks/tpu_peers.py --topologies v5e:2x2 v6e:2x2 v5p:2x2x1 --out tpu_peers.json

Compiles the steps with the compiler for TPUs, on any machine (`transfer_jax[pods]`); nothing runs. The peers
are the networks of `tpu_peer_steps.py`, with the same batch, precision and optimizer. Every figure is for one
chip and from the compiled program:

- HBM GB: bytes to and from the memory, by the layouts of operands and results (`planning/tpu_program.py`);
- Mcycles: the sum of the compiler's estimates; it has none for kernels of Pallas and transfers between chips,
  which are counted in `unestimated`;
- peak GB: the memory that the program needs;
- MB exchanged: bytes sent to other chips, with rings;
- TFLOP: two for each multiply-add, as the compiler counts them.
"""

import argparse
import datetime
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from contest import report
from tpu_peer_steps import NETWORKS, peer_step

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.distributed.sharding import Strategy
from transfer_jax.planning.chips import CHIPS
from transfer_jax.planning.topology import topology_devices, without_tpu
from transfer_jax.planning.tpu_program import TpuProgram
from transfer_jax.runs.resolve import resolve
from transfer_jax.training.background_compile import compiled_step

CLASSES = 1000


def our_step(model: str, trains: str, images: int, devices: list[Any]) -> Any:
    """Compiles our training step for all devices."""
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
    run = resolved.with_settings(batch_size=count).abstract_run(Strategy.of("mesh", devices=devices))
    return compiled_step(run, run.parts(0)).run


def row_of(program: str, model: str, topology: str, trains: str, compile_step: Any) -> dict[str, Any] | None:
    """Compiles a step, and returns its row; None if there is no such step."""
    started = time.perf_counter()
    compiled = compile_step()
    if compiled is None:
        return None
    cost = TpuProgram(compiled.as_text(), CHIPS[topology.partition(":")[0]]).cost
    return {
        "program": program,
        "network": model,
        "topology": topology,
        "trains": trains,
        "HBM GB": cost.hbm_bytes / 1e9,
        "Mcycles": (cost.cycles + cost.kernel_cycles) / 1e6,
        "kernel Mcycles": cost.kernel_cycles / 1e6,
        "unestimated": cost.without_cycles,
        "peak GB": compiled.memory_analysis().peak_memory_in_bytes / 1e9,
        "MB exchanged": cost.exchanged / 1e6,
        "TFLOP": cost.flops / 1e12,
        "compiled in s": time.perf_counter() - started,
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--topologies", nargs="+", default=["v5e:2x2", "v6e:2x2", "v5p:2x2x1"])
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--trains", nargs="+", default=["head", "all_()"], help="selectors")
    parser.add_argument("--images", type=int, default=32, help="images for each chip and step")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    without_tpu()
    rows = []
    for topology in options.topologies:
        devices = topology_devices(topology)
        for model in options.models:
            for trains in options.trains:
                arguments = (model, trains, options.images, devices)
                steps = {
                    "transfer_jax": (trains, lambda arguments=arguments: our_step(*arguments)),
                    "Flax Linen and Optax": (trains, lambda arguments=arguments: peer_step(*arguments)),
                }
                if trains == "head":
                    forward = (model, "forward", options.images, devices)
                    steps["Flax Linen, forward"] = ("", lambda forward=forward: peer_step(*forward))
                for program, (trained, compile_step) in steps.items():
                    row = row_of(program, model, topology, trained, compile_step)
                    if row is not None:
                        rows.append(row)
                        print(row, flush=True)
                jax.clear_caches()
    title = f"A step of {options.images} images a chip, bfloat16, {datetime.date.today()}"
    report(title, rows, options.out, packages=("jax", "jaxlib", "libtpu", "flax", "optax"))


if __name__ == "__main__":
    main()
