"""Which operations take the cycles and the memory traffic of a compiled TPU program?

    python benchmarks/tpu_peers.py --topologies v5e:2x2 --models vit_base_patch16_224 --texts texts
    python benchmarks/tpu_attribution.py texts/*.txt

Adds up the instructions of a program's text (`compiled.as_text()`) by the operation of JAX that they come
from, without the numbers of blocks, and prints the groups with the most cycles and the most traffic. Copies
between the memories, which come from no operation, are grouped by their array. The body of a loop counts as
often as it runs.
"""

import argparse
import collections
import re
from pathlib import Path

from contest import print_rows

from transfer_jax.planning.chips import CHIPS
from transfer_jax.planning.program_text import Instruction
from transfer_jax.planning.tpu_program import ProgramCost, TpuProgram

_NAME = re.compile(r'op_name="([^"]*)"')
_CALL = re.compile(r"\b(?:jit|jvp|vmap|checkpoint)\((.*?)\)")
_NUMBER = re.compile(r"(?<=[._])\d+\b")
_LONGEST = 70


def group(each: Instruction) -> str:
    """Returns the operation of JAX that an instruction comes from, or else the array that it moves."""
    found = _NAME.search(each.rest)
    if found is None:
        array = next(iter(each.arrays), None)
        return f"{each.op} {array.type}{[*array.shape]}" if array else each.op
    path = _NUMBER.sub("*", found[1])
    backward = "backward " if "transpose(" in path else ""
    while (shorter := _CALL.sub(r"\1", path)) != path:
        path = shorter
    return f"{backward}{each.op} {path[-_LONGEST:]}"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("texts", nargs="+", type=Path, help="texts of compiled programs")
    parser.add_argument("--chip", choices=CHIPS, default="v5e", help="the chip, for cycles of kernels")
    parser.add_argument("--top", type=int, default=15, help="number of groups in each table")
    options = parser.parse_args()
    for path in options.texts:
        program = TpuProgram(path.read_text(), CHIPS[options.chip])
        groups: dict[str, ProgramCost] = collections.defaultdict(ProgramCost)
        counts: collections.Counter[str] = collections.Counter()
        for each, cost in program.costs():
            if cost != ProgramCost():
                groups[group(each)] += cost
                counts[group(each)] += 1
        rows = [
            {
                "operation": name,
                "instructions": counts[name],
                "Mcycles": (cost.cycles + cost.kernel_cycles) / 1e6,
                "HBM GB": cost.hbm_bytes / 1e9,
                "MB exchanged": cost.exchanged / 1e6,
            }
            for name, cost in groups.items()
        ]
        whole = program.cost
        total = f"{(whole.cycles + whole.kernel_cycles) / 1e6:.1f} Mcycles, {whole.hbm_bytes / 1e9:.2f} GB"
        for column in ("Mcycles", "HBM GB"):
            rows.sort(key=lambda row, column=column: -row[column])
            print_rows(f"{path.name} ({total}), most {column}", rows[: options.top])


if __name__ == "__main__":
    main()
