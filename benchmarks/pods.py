"""What does a training step need on a chip of a TPU pod, by selector?

    python benchmarks/pods.py --out pods.json

Compiles steps of three networks for pods with the compiler for TPUs, on any machine (`transfer_jax[pods]`);
nothing runs. Every figure is for one chip. The time is a bound from the published peaks of the chip: no
step is faster, and no more images a second are possible.
"""

import argparse
import datetime
from pathlib import Path
from typing import Any

import numpy as np
from contest import report

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.planning.topology import pod_costs, without_tpu
from transfer_jax.report.console import BARS
from transfer_jax.runs.resolve import resolve

NETWORKS = {
    "resnet50": ("head", "from_('layer4')", "from_('layer3')", "all_()"),
    "vit_base_patch16_224": ("head", "from_('blocks.10')", "from_('blocks.6')", "all_()"),
    "vit_large_patch16_224": ("head", "from_('blocks.22')", "from_('blocks.12')", "all_()"),
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
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    without_tpu()
    labels = np.arange(2 * MOST) % CLASSES
    dataset = from_arrays(np.zeros((len(labels), 1, 1), np.uint8), labels, tuple(map(str, range(CLASSES))))
    rows: list[dict[str, Any]] = []
    for model in arguments.models:
        for topology in arguments.topologies:
            for fsdp in arguments.fsdp:
                trains = arguments.trains or NETWORKS[model]
                resolved = resolve(config_of(model, fsdp), dataset=dataset)
                options = {"images": arguments.images, "train": trains}
                for cost in pod_costs(resolved, topology, BARS, **options):
                    rows.append(
                        {
                            "network": model,
                            "pod": topology,
                            "fsdp": fsdp,
                            "trains": cost.train,
                            "HBM GB": cost.memory / 1e9,
                            "fits": "yes" if cost.fits else "no",
                            "stays GB": cost.arguments / 1e9,
                            "TFLOP": cost.flops / 1e12,
                            "GB moved": cost.bytes / 1e9,
                            "MB exchanged": cost.exchanged / 1e6,
                            "ms at least": 1e3 * cost.seconds,
                            "bound by": cost.bound,
                            "images/s at most": cost.images / cost.seconds,
                            "compiled in s": cost.compile_seconds,
                        }
                    )
                    print(rows[-1], flush=True)
    title = f"A step of {arguments.images} images a chip, bfloat16, {datetime.date.today()}"
    report(title, rows, arguments.out, packages=("jax", "jaxlib", "libtpu"))


if __name__ == "__main__":
    main()
