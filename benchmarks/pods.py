"""What does a training step need on a chip of a TPU pod, by selector?

    python benchmarks/pods.py --out pods.json

Compiles steps of networks for pods with the compiler for TPUs, on any machine (`transfer_jax[pods]`); nothing
runs. Every figure is for one chip. There are two times: a bound that no step with the same operations, arrays
and exchange can beat, from the published peaks of the chip, and the compiler's estimate for this program.
`--markdown` also prints the table of docs/pods.md.
"""

import argparse
import datetime
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from contest import print_rows, read_rows, write_report

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.planning.pod_cost import PodCost
from transfer_jax.planning.topology import pod_costs, without_tpu
from transfer_jax.report.console import BARS
from transfer_jax.runs.resolve import resolve

NETWORKS = {
    "resnet50": ("head", "from_('layer4')", "from_('layer3')", "all_()"),
    "vit_base_patch16_224": ("head", "from_('blocks.10')", "from_('blocks.6')", "all_()"),
    "vit_large_patch16_224": ("head", "from_('blocks.22')", "from_('blocks.12')", "all_()"),
    "vit_large_patch16_dinov3": ("head", "from_('blocks.22')", "from_('blocks.12')", "all_()"),
}
CLASSES = 1000
MOST = 2**17
"""Random images for the largest batch."""


def config_of(model: str, fsdp: int) -> TrainConfig:
    """Returns the config of a network on images, in bfloat16."""
    phase = Phase(name="step", train="head", epochs=1, learning_rate=1e-3, cache="off")
    return TrainConfig(
        images="none",
        model=model,
        weights="none",
        precision="bfloat16",
        schedule=Schedule((phase,)),
        fsdp=fsdp,
    )


def cost_row(model: str, topology: str, fsdp: int, cost: PodCost) -> dict[str, Any]:
    """Returns the row of a step, with the name of its network and pod."""
    return {
        "network": model,
        "pod": topology,
        "fsdp": fsdp,
        "trains": cost.train,
        "memory GB": cost.memory / 1e9,
        "fits": "yes" if cost.fits else "no",
        "stays GB": cost.arguments / 1e9,
        "TFLOP": cost.flops / 1e12,
        "HBM GB": cost.hbm_bytes / 1e9,
        "compulsory GB": cost.compulsory_bytes / 1e9,
        "MB exchanged": cost.exchanged / 1e6,
        "Mcycles": (cost.cycles + cost.kernel_cycles) / 1e6,
        "kernel Mcycles": cost.kernel_cycles / 1e6,
        "without cycles": cost.left_out,
        "bound ms": 1e3 * cost.bound_seconds,
        "bound by": cost.bound,
        "estimate ms": 1e3 * cost.estimated_seconds,
        "images/s, estimate": cost.images / cost.estimated_seconds,
        "compiled in s": cost.compile_seconds,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the table of docs/pods.md."""
    columns = {
        "memory GB": ".2f",
        "TFLOP": ".2f",
        "HBM GB": ".2f",
        "compulsory GB": ".2f",
        "MB exchanged": ",.0f",
        "Mcycles": ".1f",
        "bound ms": ".1f",
        "estimate ms": ".1f",
        "images/s, estimate": ",.0f",
    }
    lines = [
        " | ".join(("| network, pod", "trainable", *columns, "")).strip(),
        "|---|---|" + "--:|" * len(columns),
    ]
    before = ""
    for row in rows:
        name = f"`{row['network']}`, {row['pod']}" + (f", fsdp {row['fsdp']}" if row["fsdp"] > 1 else "")
        cells = [f"{row[column]:{form}}" for column, form in columns.items()]
        lines.append(" | ".join(("|", "" if name == before else name, f"`{row['trains']}`", *cells, "|")))
        before = name
    return "\n".join(line.replace("| |", "|").replace("|  |", "| |") for line in lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--topologies", nargs="+", default=["v5e:16x16", "v5p:8x8x8"])
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument(
        "--trains", nargs="+", help="selectors; default: the head, one and two parts, the whole network"
    )
    parser.add_argument("--images", type=int, default=32, help="images for each chip and step")
    parser.add_argument("--fsdp", type=int, nargs="+", default=[1])
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/pods.md as well")
    parser.add_argument(
        "--out", type=Path, help="JSON file to write; steps that it already contains are not compiled again"
    )
    arguments = parser.parse_args()
    without_tpu()
    labels = np.arange(2 * MOST) % CLASSES
    dataset = from_arrays(np.zeros((len(labels), 1, 1), np.uint8), labels, tuple(map(str, range(CLASSES))))
    done = read_rows(arguments.out)
    rows: list[dict[str, Any]] = []
    title = f"A step of {arguments.images} images a chip, bfloat16, {datetime.date.today()}"
    packages = ("jax", "jaxlib", "libtpu")
    for model, topology, fsdp in itertools.product(arguments.models, arguments.topologies, arguments.fsdp):
        for trains in arguments.trains or NETWORKS[model]:
            step = {"network": model, "pod": topology, "fsdp": fsdp, "trains": trains}
            found = next((row for row in done if step.items() <= row.items()), None)
            if found is None:
                resolved = resolve(config_of(model, fsdp), dataset=dataset)
                (cost,) = pod_costs(resolved, topology, BARS, images=arguments.images, train=[trains])
                found = cost_row(model, topology, fsdp, cost)
                print(found, flush=True)
            rows.append(found)
            if arguments.out is not None:
                others = [row for row in done if row not in rows]
                write_report(title, rows + others, arguments.out, packages=packages)
    print_rows(title, rows)
    if arguments.markdown:
        print(markdown(rows))


if __name__ == "__main__":
    main()
