"""How much time does `fit` add to the compiled step: reading, waiting for batches, logging, checkpoints?

    python benchmarks/loop.py --out loop.json

Trains phases of EfficientNet-Lite0 on the solar cells with `fit`, which times its steps including the wait
for their input. Then it calls the same compiled step as often on one prepared batch, and reads nothing back
until the end. Rounds are interleaved; the ratio is that of the medians of images per second. Compile time
and extraction are apart, so the program of the next phase is not compiled during training. On a CPU, phases
on images share their cores with the threads that read and augment them.
"""

import argparse
import datetime
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from contest import report

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.report.progress import Silent
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.training.forward import INPUTS
from transfer_jax.training.phase_trainer import PhaseTrainer

PHASES = (
    Phase(name="head, cached", train="head", epochs=30, learning_rate=1e-3),
    Phase(name="last stage, cached", train="from_('blocks.15')", epochs=5, learning_rate=1e-4),
    Phase(name="from blocks.11, cached", train="from_('blocks.11')", epochs=2, learning_rate=1e-4),
    Phase(name="last stage, live", train="from_('blocks.15')", epochs=1, learning_rate=1e-4, augment=True),
    Phase(name="everything, live", train="all_()", epochs=1, learning_rate=1e-5, augment=True),
)


def bare(trainer: PhaseTrainer, steps: int) -> float:
    """Returns the images per second of the compiled step on one batch."""
    batch = trainer.data.complete(next(iter(trainer.data.train)))
    images = len(batch["label"])
    rates = trainer.parts.rates(0)
    given = jax.device_put({name: batch[name] for name in (*INPUTS, "label") if name in batch})
    arguments = (trainer.frozen, given, rates, {})
    step = trainer.programs.compiled("step", trainer.state, *arguments)
    state, _ = step(trainer.state, *arguments)
    jax.block_until_ready(state)
    started = time.perf_counter()
    for _ in range(steps):
        state, _ = step(state, *arguments)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - started
    trainer.state = state
    return images * steps / seconds


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    rates: dict[str, dict[str, list[float]]] = {
        phase.name: {"fit": [], "the step alone": []} for phase in PHASES
    }
    with tempfile.TemporaryDirectory() as scratch:
        config = TrainConfig(
            images="elpv",
            batch_size=arguments.batch,
            schedule=Schedule(PHASES),
            feature_dir=str(Path(scratch, "features")),
            compile_ahead=False,
        )
        run = load_network(resolve(config), Path(scratch, "bare"))
        trainers = [PhaseTrainer(run, run.parts(index), run.arrays, Silent()) for index in range(len(PHASES))]
        for index in range(arguments.rounds):
            for phase in fit(config, Path(scratch, f"fit-{index}")).phases:
                rates[phase.name]["fit"].append(phase.images_per_second)
            for trainer in trainers:
                steps = min(trainer.parts.steps, 500)
                rates[trainer.parts.phase.name]["the step alone"].append(bare(trainer, steps))
    rows: list[dict[str, Any]] = []
    for name, found in rates.items():
        medians = {key: statistics.median(values) for key, values in found.items()}
        rows.append({"images/s": name, **medians, "ratio": medians["fit"] / medians["the step alone"]})
    report(f"Batches of {arguments.batch}, {datetime.date.today()}", rows, arguments.out, packages=("jax",))


if __name__ == "__main__":
    main()
