"""What does it cost to shard a training step over devices?

    python benchmarks/scaling.py --out scaling.json

Times the step of a network on one prepared batch: for each number of devices, with plain `jit` on one of
them and with each strategy on all, with the same batch. On a CPU the devices are virtual and use the same
cores, so the same work takes the same time apart from the cost of sharding: the ratio shows that cost. On
accelerators (GPUs, and all chips of a TPU host) more devices are faster, and MFU is the fraction of the
published peak of the chips that the operations of the network reach.
"""

import argparse
import datetime
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import Build, contest, report

STRATEGIES = ("mesh", "fsdp", "pmap")
PEAKS = {  # operations per second in bfloat16, by JAX's name of the device
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}
"""The peaks in the data sheets of the vendors, without sparsity."""


def spread(
    strategy: str, devices: int, model: str, train: str, batch: int, size: int, precision: str
) -> Callable[[], Any]:
    """Returns a step on that many devices; its facts are operations per step and the kind of device."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(devices)))

    import jax
    import numpy as np

    from transfer_jax import Phase, Schedule, TrainConfig
    from transfer_jax.data import from_arrays
    from transfer_jax.malloc import keep_freed_memory
    from transfer_jax.report.progress import Silent
    from transfer_jax.runs.load_network import load_network
    from transfer_jax.runs.resolve import resolve
    from transfer_jax.training.forward import INPUTS
    from transfer_jax.training.phase_trainer import PhaseTrainer

    keep_freed_memory()
    jax.config.update("jax_num_cpu_devices", devices)
    pixels = np.random.default_rng(0).integers(0, 256, (2 * batch, size, size, 3), np.uint8)
    dataset = from_arrays(pixels, np.arange(2 * batch) % 2, ("a", "b"))
    phase = Phase(name="step", train=train, epochs=1, learning_rate=1e-5, cache="off")
    config = TrainConfig(
        images="noise",
        model=model,
        weights="none",
        image_size=size,
        batch_size=batch,
        precision=precision,  # pyright: ignore[reportArgumentType]
        schedule=Schedule((phase,)),
        strategy="mesh" if strategy == "fsdp" else strategy,  # pyright: ignore[reportArgumentType]
        fsdp=devices if strategy == "fsdp" else 1,
        val_fraction=0.25,
    )
    run = load_network(resolve(config, dataset=dataset), Path())
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    read = next(iter(trainer.data.train))
    given = run.strategy.batch({name: read[name] for name in (*INPUTS, "label") if name in read})
    given = given if run.strategy.mesh else jax.device_put(given)
    arguments = (trainer.frozen, given, trainer.parts.rates(0), {})
    step = trainer.programs.compiled("step", trainer.state, *arguments)
    state = trainer.state

    def call() -> None:
        nonlocal state
        state, metrics = step(state, *arguments)
        jax.block_until_ready((state, metrics))

    facts = {"operations": 2 * step.multiply_adds, "kind": jax.devices()[0].device_kind}
    setattr(call, "facts", facts)  # noqa: B010
    return call


def contenders_of(arguments: argparse.Namespace, devices: int) -> dict[str, Build]:
    """Returns plain jit on one device, and each strategy on several."""
    given = (arguments.model, arguments.train, arguments.batch, arguments.size, arguments.precision)
    spread_to = [functools.partial(spread, strategy, devices, *given) for strategy in STRATEGIES]
    return {
        "jit": functools.partial(spread, "jit", 1, *given),
        **dict(zip(STRATEGIES, spread_to, strict=True)),
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--train", default="all_()", help="selector")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--batch", type=int, default=32, help="images of all devices together")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for devices in arguments.devices:
        timings = contest(contenders_of(arguments, devices), rounds=arguments.rounds)
        for strategy, timing in timings.items():
            used = 1 if strategy == "jit" else devices
            peak = PEAKS.get(str(timing.facts.get("kind")))
            done = timing.facts["operations"] / timing.median
            rows.append(
                {
                    "devices": used,
                    "strategy": strategy,
                    "images/s": arguments.batch / timing.median,
                    "of jit's time": timing.median / timings["jit"].median,
                    "MFU": "" if peak is None else f"{done / peak / used:.1%}",
                    "start-up s": timing.prepare,
                    "peak GB": timing.peak / 1e9,
                }
            )
    title = f"{arguments.model}, {arguments.train}, {arguments.batch} images of {arguments.size} px"
    report(f"{title}, {datetime.date.today()}", rows, arguments.out, packages=("jax", "flax", "optax"))


if __name__ == "__main__":
    main()
