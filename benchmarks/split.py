"""How good is the boundary that `split_frozen` finds in a network whose blocks it does not know?

    python benchmarks/split.py --out split.json

Takes a network of each family as a plain function of flat dictionaries, splits it for several selectors, and
compares the features with those at the best boundary between blocks: bytes per image, and the seconds to
trace and cut. With `--run` it also computes: the largest difference between the split and the whole, each
operation run alone, the largest relative difference of the gradients, and the FLOPs of a compiled training
step on features, as a fraction of those of a step on images.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contest import report

from transfer_jax.features import row_shapes
from transfer_jax.freezing import boundary, combine, labels, partition, split_frozen, top
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import FAMILIES

FIRST = [next(iter(family.variants)) for family in FAMILIES]


def row_of(name: str, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the figures of a network whose head and last `count` blocks train."""
    model = create_model(name, 10, abstract_backbone=not arguments.run)
    model.eval()
    graphdef, params, statistics = split(model)
    names, size = model.backbone.block_names, arguments.size
    found = labels(params, top(count), names)
    last = boundary(found, names)
    assert last is not None

    def function(params, state, batch, key):
        return merge(graphdef, {**params, **state})(batch["image"]), state

    images = jax.ShapeDtypeStruct((arguments.batch, size, size, 3), jnp.float32)
    start = time.perf_counter()
    parts = split_frozen(function, params, found, {"image": images}, state=statistics)
    seconds = time.perf_counter() - start
    shape = row_shapes(graphdef, {**params, **statistics}, size)[last]
    row = {
        "network": name,
        "trains": f"top({count})",
        "bytes": parts.cost.bytes,
        "bytes at the block": 4 * int(np.prod(shape)),
        "arrays": len(parts.features),
        "seconds": seconds,
    }
    return {**row, **_computed(function, params, statistics, found, parts, images)} if arguments.run else row


def _computed(function, params, statistics, found, parts, like) -> dict[str, float]:
    """Returns the differences between the split and the whole, and the FLOPs of a compiled step."""
    batch = {"image": jax.random.normal(jax.random.key(0), like.shape)}
    trainable, frozen = partition(params, found)
    features = parts.prefix(frozen, batch, statistics)
    outputs = parts.suffix(trainable, frozen, statistics, features, {}, None)[0]
    whole = function(params, statistics, batch, None)[0]

    def on_features(trainable, features):
        return jnp.square(parts.suffix(trainable, frozen, statistics, features, {}, None)[0]).mean()

    def on_images(trainable, batch):
        return jnp.square(function(combine(trainable, frozen), statistics, batch, None)[0]).mean()

    steps = {}
    for name, loss, given in (("features", on_features, features), ("images", on_images, batch)):
        compiled = jax.jit(jax.grad(loss)).lower(trainable, given).compile()
        analysis: Any = compiled.cost_analysis()
        steps[name] = (compiled(trainable, given), analysis["flops"])
    pairs = zip(jax.tree.leaves(steps["features"][0]), jax.tree.leaves(steps["images"][0]), strict=True)
    return {
        "difference": float(jnp.abs(outputs - whole).max()),
        "gradients": max(
            float(jnp.abs(one - other).max() / (jnp.abs(other).max() + 1e-12)) for one, other in pairs
        ),
        "FLOPs": steps["features"][1] / steps["images"][1],
    }


def main() -> None:
    """Splits the networks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=FIRST)
    parser.add_argument("--top", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--run", action="store_true", help="compute as well, not only trace")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [row_of(name, count, arguments) for name in arguments.models for count in arguments.top]
    report("Boundaries of functions", rows, arguments.out, packages=("jax",))


if __name__ == "__main__":
    main()
