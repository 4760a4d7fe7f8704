"""How accurate are the estimates of `transfer-jax plan --cost`, and how long do they take?

    python benchmarks/cost_estimates.py --out cost_estimates.json

Estimates the cost of a schedule on the solar cells from operations and, as `--exact` does, from measurements
of all phases. Then it trains the schedule, and compares the seconds of each phase: EfficientNet-Lite0 with a
head on cached features, the blocks from `blocks.11` on from two cached views, two blocks from images, the
whole network, and low-rank updates. Compile time is not compared. The CPU seconds of both estimates and of
the run are in the title; each of them compiles its programs again.

`--cpu-seconds` measures all times in CPU seconds of this process, for a machine on which other programs run.
"""

import argparse
import datetime
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
from contest import report

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.planning import reading_speed
from transfer_jax.planning.cost import PhaseCost, estimate_costs
from transfer_jax.report.console import BARS
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.training import compile

PHASES = (
    Phase(name="head", train="head", epochs=60, learning_rate=3e-3),
    Phase(name="top", train="from_('blocks.11')", epochs=4, learning_rate=1e-4, augment=True, views=2),
    Phase(name="live", train="top(2)", epochs=2, learning_rate=1e-4, augment=True),
    Phase(name="all", train="all_()", epochs=1, learning_rate=1e-4, augment=True),
    Phase(name="low rank", train="head", epochs=1, learning_rate=1e-3, lora="role('kernel')"),
)


def count_cpu_seconds() -> None:
    """Replaces the clocks by the CPU seconds of this process, which other programs do not change."""
    time.perf_counter = time.monotonic = time.process_time
    reading_speed.cores_in_use = lambda readers, cores: 1  # A second of two cores counts twice.


def seconds(cost: PhaseCost) -> float:
    """Returns the estimated seconds of the features and the steps of a phase."""
    return cost.extract_seconds + cost.train_seconds


def forget_programs() -> None:
    """Forgets the compiled programs of this process."""
    compile._recent.clear()
    jax.clear_caches()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--phases", nargs="+", default=[each.name for each in PHASES], help="names of phases")
    parser.add_argument("--images-per-class", type=int, help="train on fewer images, for a slow machine")
    parser.add_argument("--without-exact", action="store_true", help="estimate from operations only")
    parser.add_argument("--cpu-seconds", action="store_true", help="measure CPU seconds")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.cpu_seconds:
        count_cpu_seconds()
    phases = tuple(each for each in PHASES if each.name in arguments.phases)
    config = TrainConfig(
        images="elpv:confidence",
        model=arguments.model,
        schedule=Schedule(phases),
        images_per_class=arguments.images_per_class,
        keep_epoch="last",
    )
    cpu: dict[str, float] = {"start": time.process_time()}
    network = load_network(resolve(config), Path())
    cpu["load"] = time.process_time()
    estimates = estimate_costs(network, BARS)
    cpu["estimate"] = time.process_time()
    forget_programs()
    exact = () if arguments.without_exact else estimate_costs(network, BARS, exact=True)
    cpu["exact"] = time.process_time()
    forget_programs()
    with tempfile.TemporaryDirectory() as workdir:
        result = fit(config, workdir, progress=BARS)
    cpu["run"] = time.process_time()
    rows: list[dict[str, Any]] = []
    took = [phase.extract_seconds + phase.train_seconds for phase in result.phases]
    for index, (cost, phase) in enumerate(zip(estimates, result.phases, strict=True)):
        row = {
            "phase": cost.name,
            "step": "timed" if cost.measured else "from operations",
            "extract s": cost.extract_seconds,
            "took extract s": phase.extract_seconds,
            "train s": cost.train_seconds,
            "took train s": phase.train_seconds,
            "ratio": seconds(cost) / took[index],
        }
        if exact:
            row["ratio, exact"] = seconds(exact[index]) / took[index]
        rows.append({**row, "rows": cost.rows, "took rows": phase.extracted})
    ratios = [f"{sum(map(seconds, costs)) / sum(took):.2f}" for costs in (estimates, exact) if costs]
    spent = {name: cpu[name] - before for name, before in zip([*cpu][1:], cpu.values(), strict=False)}
    title = (
        f"Estimated / took {sum(took):.0f} s: {', exact '.join(ratios)}. CPU seconds: start and load "
        f"{cpu['load']:.0f}, estimate {spent['estimate']:.0f}, exact {spent['exact']:.0f}, run "
        f"{spent['run']:.0f}. {datetime.date.today()}"
    )
    report(title, rows, arguments.out)


if __name__ == "__main__":
    main()
