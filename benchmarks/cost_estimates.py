"""How accurate are the estimates of `transfer-jax plan --cost`?

    python benchmarks/cost_estimates.py --out cost_estimates.json

Estimates the cost of a schedule on the solar cells, trains it, and compares the seconds of each phase:
EfficientNet-Lite0 with a head on cached features, the blocks from `blocks.11` on from two cached views, two
blocks from images, the whole network, and low-rank updates. Compile time is not compared: the programs come
from the cache the second time.
"""

import argparse
import datetime
import tempfile
import time
from pathlib import Path
from typing import Any

from contest import report

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.planning.cost import estimate_costs
from transfer_jax.report.console import BARS
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve

PHASES = (
    Phase(name="head", train="head", epochs=60, learning_rate=3e-3),
    Phase(name="top", train="from_('blocks.11')", epochs=4, learning_rate=1e-4, augment=True, views=2),
    Phase(name="live", train="top(2)", epochs=2, learning_rate=1e-4, augment=True),
    Phase(name="all", train="all_()", epochs=1, learning_rate=1e-4, augment=True),
    Phase(name="low rank", train="head", epochs=1, learning_rate=1e-3, lora="role('kernel')"),
)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    config = TrainConfig(images="elpv:confidence", model=arguments.model, schedule=Schedule(PHASES))
    started = time.perf_counter()
    costs = estimate_costs(load_network(resolve(config), Path()), BARS)
    planning = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as workdir:
        result = fit(config, workdir, progress=BARS)
    rows: list[dict[str, Any]] = []
    for cost, phase in zip(costs, result.phases, strict=True):
        estimate = cost.extract_seconds + cost.train_seconds
        took = phase.extract_seconds + phase.train_seconds
        row = {"phase": cost.name, "extract s": cost.extract_seconds, "train s": cost.train_seconds}
        row |= {"took extract s": phase.extract_seconds, "took train s": phase.train_seconds}
        rows.append({**row, "ratio": estimate / took, "rows": cost.rows, "took rows": phase.extracted})
    estimate = sum(cost.extract_seconds + cost.train_seconds for cost in costs)
    took = sum(phase.extract_seconds + phase.train_seconds for phase in result.phases)
    title = (
        f"Estimated {estimate:.0f} s, took {took:.0f} s, ratio {estimate / took:.2f}; "
        f"planning took {planning:.0f} s, {datetime.date.today()}"
    )
    report(title, rows, arguments.out)


if __name__ == "__main__":
    main()
