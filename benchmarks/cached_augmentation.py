"""How well does augmentation of cached features work?

    python benchmarks/cached_augmentation.py --workdir runs/augmentation --out cached_augmentation.json

Fine-tunes EfficientNet-Lite0 on the solar cells from `blocks.11` on, in five steps, with nine kinds of
augmentation: none; brightness or symmetries of cached features; cached features of some flipped views of
each image; and images that are flipped in every epoch. Scores and costs are those of `recipes.py`, on a
part of the training cells. A second table shows how far the features of a flipped image are from the
flipped features.
"""

import argparse
import dataclasses
import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from contest import print_rows, write_report
from recipes import MODEL, PACKAGES, TOP, Bench, compare, shown

from transfer_jax import Schedule
from transfer_jax.data import eval_transform, from_elpv
from transfer_jax.features import make_prefix
from transfer_jax.freezing import recipes
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.weights import find_spec, load_pretrained

WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "feature brightness 0.1": {"feature_brightness": 0.1},
    "features flipped horizontally": {"feature_flips": "horizontal"},
    "features flipped both ways": {"feature_flips": "both"},
    "features flipped and rotated": {"feature_flips": "turns"},
    "2 flipped views": {"augment": True, "views": 2},
    "4 flipped views": {"augment": True, "views": 4},
    "8 flipped views": {"augment": True, "views": 8},
    "images flipped in every epoch": {"augment": True},
}
BELOW_TOP = "blocks.10"


def schedule(epochs: int, way: dict[str, Any]) -> Schedule:
    """Returns the five steps, with that augmentation in the last two."""
    head, top = recipes.five_steps(f"from_({TOP!r})", epochs=epochs, learning_rate=2e-4, views=1).phases
    return Schedule(
        (head, dataclasses.replace(top, **{"augment": False, "views": 0, "cache": "auto", **way}))
    )


def unlike(size: int, cells: int = 64) -> dict[str, float]:
    """Returns how far features of images are from those of mirror images, mirrored back, by symmetry.

    It is a root mean square, relative to that of the features.
    """
    spec, dataset = find_spec(MODEL), from_elpv()
    preprocessing = dataclasses.replace(spec.preprocessing, image_size=size, crop_fraction=1.0)
    model = create_model(MODEL, 2, abstract_backbone=True)
    load_pretrained(model, spec)
    model.eval()
    graphdef, params, stats = split(model)
    prefix = jax.jit(make_prefix(graphdef, BELOW_TOP, preprocessing, np.float32))
    chosen = np.linspace(0, len(dataset) - 1, cells).astype(int)
    images = np.stack([eval_transform(dataset.image(index), preprocessing) for index in chosen])
    plain = np.asarray(prefix({**params, **stats}, {"image": images}))
    found = {}
    for name, turn in {
        "horizontal": lambda x: x[:, :, ::-1],
        "vertical": lambda x: x[:, ::-1],
        "transposed": lambda x: x.swapaxes(1, 2),
    }.items():
        other = turn(np.asarray(prefix({**params, **stats}, {"image": np.ascontiguousarray(turn(images))})))
        found[name] = float(np.sqrt(np.mean((other - plain) ** 2) / np.mean(plain**2)))
    return found


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=224, help="pixels; the cells have 300")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    bench = Bench(arguments.epochs, arguments.image_size, arguments.workdir)
    schedules = {name: schedule(arguments.epochs, way) for name, way in WAYS.items()}
    rows = compare(bench, schedules, arguments.seeds)
    settings = f"{arguments.seeds} seeds, {arguments.epochs} epochs, {arguments.image_size} px"
    title = f"Augmented features on ELPV, {settings}, {datetime.date.today()}"
    print_rows(title, shown(rows))
    distances = [
        {"symmetry": name, "distance": f"{value:.1%}"} for name, value in unlike(arguments.image_size).items()
    ]
    print_rows(f"Features at {BELOW_TOP} of an image, and of its mirror image mirrored back", distances)
    if arguments.out:
        write_report(title, rows, arguments.out, packages=PACKAGES)


if __name__ == "__main__":
    main()
