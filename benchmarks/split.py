"""How good is the boundary that `split_frozen` finds in a network whose blocks it does not know?

    python benchmarks/split.py --flax ~/flax --big-vision ~/big_vision --out split.json

Splits a network of each family of this package as a plain function of flat dictionaries, and functions of
other libraries (`strangers`); those whose library or checkout is missing are left out. The columns:

- the bytes per example of the features and of what each step reads from the batch, those at the best boundary
  between blocks, and the number of features;
- the seconds to trace and cut;
- `alone`: the largest difference between prefix and suffix and the function, each operation run alone;
- `together`: the same compiled, the function with an optimization barrier at the boundary, so that XLA fuses
  the same operations; `unlike`: the same without the barrier, divided by the largest output;
- `gradients`: the largest difference of the gradients, divided by the largest gradient, with the barrier and
  without;
- `FLOPs`: those of the matrix products and convolutions of a compiled training step on features, divided by
  those that `Split.cost.step_flops` promises; `saved`: those of a step on the batch, divided by them.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from compiled_flops import compiled_flops
from contest import report
from strangers import Case, MissingError, strangers

from transfer_jax.freezing import Split, combine, partition, split_frozen
from transfer_jax.freezing.function_split.jaxprs import as_function, trace
from transfer_jax.freezing.function_split.program import Program
from transfer_jax.freezing.trees import leaves_by_path


def row_of(name: str, case: Case, computed: bool) -> dict[str, Any]:
    """Returns the figures of a case."""
    start = time.perf_counter()
    split = split_frozen(case.function, case.params, case.labels, case.batch, state=case.state)
    seconds = time.perf_counter() - start
    row = {
        "network": name,
        "trains": case.trains,
        "bytes": split.cost.bytes + sum(map(_bytes_per_example, _only(case.batch, split.inputs).values())),
        "at the block": case.block_bytes,
        "arrays": len(split.features),
        "seconds": seconds,
    }
    return {**row, **_computed(case, split)} if computed and case.computed else row


def _computed(case: Case, split: Split) -> dict[str, float]:
    """Returns the differences between the split and the function, and the FLOPs of a compiled step."""
    trainable, frozen = partition(case.params, case.labels)
    needed = _only(case.batch, split.inputs)

    def prefix(batch):
        return split.prefix(frozen, batch, case.state)

    def suffix(trainable, features):
        return split.suffix(trainable, frozen, case.state, features, needed, None)

    def whole(trainable, batch):
        return case.function(combine(trainable, frozen), case.state, batch, None)

    def together(trainable, batch):
        return suffix(trainable, jax.lax.optimization_barrier(prefix(batch)))

    alone = _difference(suffix(trainable, prefix(case.batch)), _alone(whole, trainable, case.batch))
    features = jax.jit(prefix)(case.batch)
    steps = {
        "features": _step(suffix, trainable, features),
        "together": _step(together, trainable, case.batch),
        "whole": _step(whole, trainable, case.batch),
    }
    outputs = {each: found[1] for each, (_, found) in steps.items()}
    gradients = {each: found[0] for each, (_, found) in steps.items()}
    flops = {each: compiled_flops(program) for each, (program, _) in steps.items()}
    examples = jax.tree.leaves(case.batch)[0].shape[0]
    return {
        "alone": alone,
        "together": _difference(outputs["features"], outputs["together"]),
        "unlike": _difference(outputs["features"], outputs["whole"]) / _largest(outputs["whole"]),
        "gradients": _difference(gradients["features"], gradients["together"])
        / _largest(gradients["together"]),
        "gradients unlike": _difference(gradients["features"], gradients["whole"])
        / _largest(gradients["whole"]),
        "FLOPs": flops["features"] / (examples * split.cost.step_flops),
        "saved": flops["whole"] / flops["features"],
    }


def _alone(function: Callable[..., Any], *arguments: Any) -> list[jax.Array]:
    """Returns the results of a function whose operations run one by one, also those of compiled calls."""
    jaxpr, constants, _ = trace(function, *arguments)
    program = Program.of_jaxpr(jaxpr, constants, [None] * len(jaxpr.invars))
    inputs = [*program.inputs, *program.constants]
    values = [*jax.tree.leaves(arguments), *program.constants.values()]
    return as_function(inputs, program.outputs, program.equations)(*values)


def _step(function: Callable[..., Any], trainable: Any, inputs: Any) -> tuple[Any, tuple[Any, Any]]:
    """Returns a compiled training step, and its gradients and outputs."""

    def loss(trainable, inputs):
        outputs = function(trainable, inputs)
        return sum(jnp.square(each).mean() for each in _real(outputs)), outputs

    program = jax.jit(jax.grad(loss, has_aux=True)).lower(trainable, inputs).compile()
    return program, program(trainable, inputs)


def _only(batch: Any, paths: tuple[str, ...]) -> dict[str, Any]:
    return {path: leaf for path, leaf in leaves_by_path(batch).items() if path in paths}


def _bytes_per_example(array: Any) -> int:
    return math.prod(array.shape[1:]) * array.dtype.itemsize


def _real(tree: Any) -> list[jax.Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _difference(one: Any, other: Any) -> float:
    pairs = zip(_real(one), _real(other), strict=True)
    return max(float(jnp.abs(first - second).max()) for first, second in pairs)


def _largest(tree: Any) -> float:
    return max(float(jnp.abs(leaf).max()) for leaf in _real(tree))


def main() -> None:
    """Splits the networks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of the networks")
    parser.add_argument("--top", type=int, default=1, help="trainable blocks of our networks")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--traced", action="store_true", help="only trace and cut")
    parser.add_argument("--flax", type=Path, metavar="FOLDER", help="a checkout of google/flax")
    parser.add_argument("--big-vision", type=Path, metavar="FOLDER", help="a checkout of big_vision")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cases = strangers(arguments.batch, arguments.size, arguments.top, arguments.flax, arguments.big_vision)
    if unknown := {*(arguments.only or ())} - {*cases}:
        parser.error(f"unknown networks {', '.join(unknown)}; there are {', '.join(cases)}")
    rows = []
    for name in arguments.only or cases:
        try:
            rows.append(row_of(name, cases[name](), not arguments.traced))
        except MissingError as error:
            print(f"{name} is left out: {error}")
    if rows:
        report("Boundaries of functions", rows, arguments.out, packages=("jax", "flax", "equimo"))


if __name__ == "__main__":
    main()
