"""What does it cost to measure gradients, updates and distances by depth during training?

    python benchmarks/measure_cost.py --every 50 --out measure_cost.json

Trains EfficientNet-Lite0 on the solar cells: the head on cached features, the blocks from `blocks.11` on
cached features, and the whole network on images. Training steps and measurements (`--measure-every`, with
their line in the log) are timed in turn. The cost is that of one measurement relative to that many steps,
without compile time.
"""

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import report

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.report.console import BARS
from transfer_jax.report.metrics_log import MetricsLog
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.training.gradient_statistics import by_block
from transfer_jax.training.phase_measurements import measure_gradients
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.training.run import Run

PHASES = {
    "head, cached": Phase(name="head", train="head", epochs=9, learning_rate=1e-3, cache="require"),
    "from blocks.11, cached": Phase(
        name="top", train="from_('blocks.11')", epochs=9, learning_rate=1e-4, cache="require"
    ),
    "everything": Phase(name="all", train="all_()", epochs=9, learning_rate=1e-5),
}


def timed(call: Callable[[], Any]) -> float:
    """Returns the seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def row(name: str, run: Run, index: int, log: MetricsLog, every: int, rounds: int) -> dict[str, Any]:
    """Returns the times of steps and measurements of a phase."""
    trainer = PhaseTrainer(run, run.parts(index), run.arrays, BARS)
    batches = iter(trainer.data.train)
    steps = trainer.train(batches, 0)

    def measure() -> None:
        log.write(0, "depth", phase=name, **by_block(measure_gradients(trainer, trainer.rates, 1)))

    for call in (lambda: next(steps), measure):
        call()  # compiles
    taken = {"step": [], "measure": []}
    for _ in range(rounds):
        taken["step"] += [timed(lambda: next(steps)) for _ in range(5)]
        taken["measure"].append(timed(measure))
    step, measured = (statistics.median(each) for each in taken.values())
    return {
        "phase": name,
        "step ms": f"{1000 * step:.2f}",
        "measurement ms": f"{1000 * measured:.2f}",
        f"cost every {every} steps": f"{measured / (every * step):.1%}",
        "compile s": f"{trainer.compile_seconds:.1f}",
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    config = TrainConfig(images="elpv", schedule=Schedule(tuple(PHASES.values())))
    with tempfile.TemporaryDirectory() as scratch:
        run, log = load_network(resolve(config), Path(scratch)), MetricsLog(Path(scratch, "metrics.jsonl"))
        rows = [
            row(name, run, index, log, arguments.every, arguments.rounds) for index, name in enumerate(PHASES)
        ]
    report(
        f"Measuring by depth, {datetime.date.today()}", rows, arguments.out, packages=("jax", "flax", "optax")
    )


if __name__ == "__main__":
    main()
