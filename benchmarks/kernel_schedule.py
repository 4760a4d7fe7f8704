"""How many cycles do our attention kernels take in the compiler's schedule, and how good is our estimate?

    python benchmarks/kernel_schedule.py --topology v5e:2x2 --out kernel_schedule.json

The compiler for TPUs (`transfer_jax[pods]`) gives kernels of Pallas no cycles in a program. It schedules
them all the same, as bundles of instructions of which one starts in each cycle, and writes the schedule to a
folder if undocumented options ask for it (libtpu 0.0.50). This program compiles each kernel alone, counts the
bundles of its loops as often as they run, and compares them with the estimate of `planning/tpu_program.py`,
which a plan uses. Waits for the memory are not in a schedule. `FLOPs a cycle` are those of a core, and `of
peak` the part of the peak of the matrix units that they are.
"""

import argparse
import datetime
import itertools
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from contest import report
from jax.sharding import SingleDeviceSharding

from transfer_jax.nn.attention_kernel import Sizes, backward, forward
from transfer_jax.planning.chips import CHIPS
from transfer_jax.planning.topology import topology_devices, without_tpu
from transfer_jax.planning.tpu_program import TpuProgram

NETWORKS = {
    "ViT-S/16": Sizes(32, 197, 6, 64),
    "ViT-B/16": Sizes(32, 197, 12, 64),
    "ViT-L/16": Sizes(32, 197, 16, 64),
    "ViT-H/14": Sizes(32, 257, 16, 80),
    "ViT-B/16, 384 pixels": Sizes(32, 577, 12, 64),
}
_BUNDLE = re.compile(
    r"^\s*(?:0x[0-9a-f]+|\d+)\s+(?P<mark>\w\w)?\s*:\s*(?P<depth>[> ]*)\{(?P<bundle>.*)$", re.MULTILINE
)
_EXIT = re.compile(r"scmp\.ge\.s32\.totalorder %\w+, (\d+) /\* loop exit test")


def scheduled_cycles(text: str) -> int:
    """Returns the cycles of a schedule: its bundles, those of a loop as often as it runs.

    Raises:
        ValueError: If a loop does not end at a constant.
    """
    return _cycles([*_BUNDLE.finditer(text)], 0)


def _cycles(bundles: list[re.Match], depth: int) -> int:
    """Returns the cycles of bundles inside of `depth` loops.

    A loop begins at its mark and ends at the last bundle of its depth: the compiler moves some bundles of the
    code behind a loop into it.
    """
    starts = [at for at, each in enumerate(bundles) if each["mark"] == "LB" and _depth(each) == depth + 1]
    total, before = 0, 0
    for start, following in itertools.pairwise((*starts, len(bundles))):
        end = max(at for at in range(start, following) if _depth(bundles[at]) > depth) + 1
        inside = bundles[start:end]
        exits = (_EXIT.search(each["bundle"]) for each in inside if _depth(each) == depth + 1)
        trips = next((int(found[1]) for found in exits if found), None)
        if trips is None:
            raise ValueError("a loop of the schedule does not end at a constant")
        total += start - before + trips * _cycles(inside, depth + 1)
        before = end
    return total + len(bundles) - before


def _depth(bundle: re.Match) -> int:
    """Returns the number of loops around a bundle; 0 for empty bundles, which are written without it."""
    return bundle["depth"].count(">")


def compiled(function: Any, device: Any, *shapes: tuple[int, ...]) -> Any:
    """Compiles a function of arrays in bfloat16 for a device."""
    sharding = SingleDeviceSharding(device)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding) for shape in shapes]
    return jax.jit(function).lower(*arrays).compile()


def row_of(name: str, direction: str, topology: str, folder: Path) -> dict[str, Any]:
    """Compiles a kernel alone, and compares its schedule with our estimate."""
    sizes, chip = NETWORKS[name], CHIPS[topology.partition(":")[0]]
    device = topology_devices(topology)[0]
    shape = (sizes.batch, sizes.tokens, sizes.width)
    for path in folder.iterdir():
        path.unlink()
    if direction == "forward":
        program = compiled(lambda q, k, v: forward(sizes, (q, k, v), None), device, shape, shape, shape)
    else:
        program = compiled(
            lambda q, k, v, g: backward(sizes, (q, k, v), None, g)[0], device, shape, shape, shape, shape
        )
    (schedule,) = folder.glob("*attention*-final_bundles.txt")
    cycles, cost = scheduled_cycles(schedule.read_text()), TpuProgram(program.as_text(), chip).cost
    return {
        "network": name,
        "kernel": direction,
        "topology": topology,
        "scheduled Mcycles": cycles / 1e6,
        "estimated Mcycles": cost.kernel_cycles / 1e6,
        "FLOPs a cycle": round(cost.flops / cycles / chip.cores),
        "of peak": cost.flops / chip.cycle_flops / cycles,
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    flags = ("to=" + str(folder), "llo_text=true", "llo_pass_label_regex=bundles")
    os.environ["LIBTPU_INIT_ARGS"] = " ".join(f"--xla_jf_dump_{flag}" for flag in flags)
    without_tpu()
    rows = []
    try:
        for name in options.networks:
            for direction in ("forward", "backward"):
                rows.append(row_of(name, direction, options.topology, folder))
                print(rows[-1], flush=True)
    finally:
        shutil.rmtree(folder)
    title = f"Schedules of attention kernels, bfloat16, 32 images, {datetime.date.today()}"
    report(title, rows, options.out, packages=("jax", "jaxlib", "libtpu"))


if __name__ == "__main__":
    main()
