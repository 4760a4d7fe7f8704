"""What does a training step cost at each boundary, compared with its operation count?

    python benchmarks/boundaries.py --out boundaries.json

Times steps of two networks that train the head and the top k blocks, for several k, on images and on cached
features, and compares them with a step of the whole network. Forward counts once and backward twice: with F
multiply-adds in a forward pass, T of them above the boundary, a step of the whole network takes at most 3F
/ (F + 2T) times as long on images, and F / T times on cached features. For L equal blocks that is 3L / (L +
2k) and L / k. A plot is written beside the JSON file.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from contest import Build, contest, report
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from peers import Given, our_network, timm_arrays
from train_step import CLASSES, ours

from transfer_jax.features import FeatureShapes
from transfer_jax.models import Classifier
from transfer_jax.models.flat_arrays import Arrays, merge, split
from transfer_jax.nn.flops import multiply_adds
from transfer_jax.report.save_figure import save_figure

FIRST_TRAINED = {
    "efficientnet_lite0": ("blocks.3", "blocks.5", "blocks.8", "blocks.11", "blocks.15", "head"),
    "vit_small_patch16_224": ("blocks.3", "blocks.6", "blocks.9", "blocks.11"),
}


def operations(model: Classifier, size: int, first: str) -> tuple[int, int]:
    """Returns the multiply-adds of one image's forward pass: of all blocks, and of those from `first` on."""
    graphdef, params, stats = split(model)
    arrays = {**params, **stats}
    names = (*model.backbone.block_names, "head")
    boundary = names[names.index(first) - 1]

    def count(start: str | None, shape: tuple[int, ...]) -> int:
        def forward(arrays: Arrays, x: jax.Array) -> jax.Array:
            return merge(graphdef, arrays)(x, start=start)

        return multiply_adds(forward, arrays, jax.ShapeDtypeStruct((1, *shape), jnp.float32))

    features = FeatureShapes(graphdef, arrays, size)[boundary]["features"]
    return count(None, (size, size, 3)), count(boundary, features.shape)


def rows_of(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each boundary of a network."""
    given = Given(
        name, timm_arrays(name, arguments.size), arguments.batch, arguments.size, arguments.precision
    )
    model = our_network(given, CLASSES)
    run = functools.partial(ours, given)
    everything = functools.partial(run, trains="all_()", cached=False)
    rows = []
    for first in FIRST_TRAINED[name]:
        trains = "head" if first == "head" else f"from_({first!r})"
        contenders: dict[str, Build] = {
            "everything": everything,
            "live": functools.partial(run, trains=trains, cached=False),
            "cached": functools.partial(run, trains=trains, cached=True),
        }
        # One boundary at a time: the programs of all of them do not fit into memory together.
        timings = contest(contenders, rounds=arguments.rounds)
        whole, above = operations(model, arguments.size, first)
        live, cached = timings["live"], timings["cached"]
        rows.append(
            {
                "network": name,
                "trains from": first,
                "share of the multiply-adds": above / whole,
                "ms live": 1e3 * live.median,
                "ms cached": 1e3 * cached.median,
                "GB live": live.peak / 1e9,
                "GB cached": cached.peak / 1e9,
                "faster live": timings["everything"].median / live.median,
                "at most": 3 * whole / (whole + 2 * above),
                "faster cached": timings["everything"].median / cached.median,
                "cached, at most": whole / above,
                "of that": timings["everything"].median / cached.median * above / whole,
            }
        )
    return rows


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plots the measured and the predicted speed-up by boundary, a panel for each network."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure = Figure(figsize=(4.5 * len(networks), 3.6), layout="constrained")
    grid = figure.subplots(1, len(networks), squeeze=False, sharey=True)[0]
    for axes, network in zip(grid, networks, strict=True):
        found = [row for row in rows if row["network"] == network and row["trains from"] != "head"]
        names = [row["trains from"] for row in found]
        for measured, bound, colour, label in (
            ("faster cached", "cached, at most", "C0", "on cached features"),
            ("faster live", "at most", "C1", "on images"),
        ):
            axes.plot(names, [row[measured] for row in found], "o-", color=colour, label=label)
            axes.plot(names, [row[bound] for row in found], ":", color=colour)
        axes.plot([], [], ":", color="0.4", label="predicted from multiply-adds")
        axes.set(yscale="log", title=network, xlabel="first trainable block")
        axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 5, 10, 20]))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y", color="0.9")
    grid[0].set_ylabel("speed-up over a step of the whole network")
    grid[0].legend(frameon=False)
    save_figure(figure, path)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    networks = tuple(FIRST_TRAINED)
    parser.add_argument("--models", nargs="+", choices=networks, default=networks, help=", ".join(networks))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file to write, and an SVG beside it")
    arguments = parser.parse_args()
    rows = [row for name in arguments.models for row in rows_of(name, arguments)]
    title = f"{arguments.size} px, batch {arguments.batch}, {arguments.precision}, step by boundary"
    report(title, rows, arguments.out, packages=("jax", "flax"))
    if arguments.out:
        draw(rows, arguments.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
