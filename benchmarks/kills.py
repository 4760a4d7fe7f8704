"""Does a run that is killed at any moment end like one that is not?

    python benchmarks/kills.py --kills 20 --out kills.json

Trains a schedule of four phases on the tiny network and coloured noise: a head on cached views, everything
under a controller that moves the cut, a part with rates scaled by gradients and interpolated weights, and
low-rank updates. Once undisturbed; then the command is killed with SIGKILL at random moments, and started
again, until it has ended; several runs, if one does not take so many kills. Model, predictions, log with the
order of the images, certificates and the last checkpoint (parameters and optimizer state) must be the same,
bit for bit. A kill says where it hit: while starting, compiling, training, or saving.
"""

import argparse
import datetime
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from contest import report
from PIL import Image

CONFIG = """
from transfer_jax import Phase, Schedule, TrainConfig

config = TrainConfig(
    images={images!r},
    model="efficientnet_lite_tiny",
    weights="none",
    batch_size=8,
    dropout=0.2,
    ema_decay=0.9,
    eval_every=1,
    measure_every=5,
    checkpoint_seconds=0,
    schedule=Schedule((
        Phase(name="head", train="head", epochs=4, learning_rate=0.01, augment=True, views=3),
        Phase(name="all", train="all_()", epochs=4, learning_rate=1e-3, norm="train", augment=True,
              controller="pipetransformer", l2_sp=0.1),
        Phase(name="part", train="top(3)", epochs=4, learning_rate=1e-3, statistic="rgn", interpolate=0.7),
        Phase(name="low rank", train="head", epochs=4, learning_rate=1e-2, lora="role('kernel')"),
    )),
)
"""
FILES = ("model/weights.safetensors", "model/model.json", "metrics.jsonl", "predictions.csv")


def draw(folder: Path, each: int = 24) -> None:
    """Images whose colour tells their class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 120, (40, 40, 3))
            pixels[..., 2 - label] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:02}.png")


def start(config: Path, workdir: Path) -> subprocess.Popen[bytes]:
    """Starts the command; every workdir has a compilation cache of its own, so that each run compiles."""
    command = [sys.executable, "-m", "transfer_jax.cli", "train", str(config), "--workdir", str(workdir)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{workdir}.xla"}
    with Path(f"{workdir}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def where(workdir: Path, began: float) -> str:
    """What a run was at when it was killed, from what lies in its folder."""
    steps = workdir / "checkpoints" / "steps"
    saved = [path for path in steps.glob("*") if path.name.isdigit()] if steps.is_dir() else []
    unfinished = steps.is_dir() and len(saved) < len([*steps.iterdir()])
    checked = {path.stem for path in (workdir / "checkpoints" / "checksums").glob("*.json")}
    if unfinished or any(path.name not in checked for path in saved):
        return "saving"
    newest = max((path.stat().st_mtime for path in saved), default=0.0)
    if newest > began:
        return "training"
    return "compiling" if saved or (workdir / "features").is_dir() else "starting"


def digest(workdir: Path) -> dict[str, Any]:
    """All that must be the same."""
    from transfer_jax.checkpoint import Checkpoints
    from transfer_jax.files import sha256
    from transfer_jax.freezing.proof import digests

    names = [*FILES, *(str(path.relative_to(workdir)) for path in (workdir / "certificates").iterdir())]
    found: dict[str, Any] = {name: sha256(workdir / name) for name in sorted(names)}
    checkpoints = Checkpoints(workdir / "checkpoints")
    latest = checkpoints.latest()
    assert latest is not None
    for name in ("carried", "ended"):
        arrays = checkpoints.arrays(latest, name)
        found |= {f"{name} {path}": value for path, value in digests(arrays).items()}
    checkpoints.close()
    return found


def _check(code: int, workdir: Path) -> None:
    if code:
        raise SystemExit(f"exit code {code}:\n{Path(f'{workdir}.log').read_text()[-3000:]}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        images, config = Path(scratch, "images"), Path(scratch, "config.py")
        draw(images)
        config.write_text(CONFIG.format(images=str(images)))
        started = time.monotonic()
        _check(start(config, Path(scratch, "whole")).wait(), Path(scratch, "whole"))
        seconds = time.monotonic() - started
        expected = digest(Path(scratch, "whole"))
        rows: list[dict[str, Any]] = []
        run = 0
        while len(rows) < arguments.kills:
            run += 1
            workdir = Path(scratch, f"run {run}")
            while True:
                began, process = time.time(), start(config, workdir)
                try:
                    left = chance.uniform(0.02, 0.6) * seconds if len(rows) < arguments.kills else None
                    code = process.wait(left)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    after = f"{time.time() - began:.1f}"
                    hit = where(workdir, began)
                    print(f"kill {len(rows) + 1} after {after} s, {hit}", flush=True)
                    rows.append({"kill": len(rows) + 1, "run": run, "after s": after, "hit": hit})
                    continue
                _check(code, workdir)
                break
            found = digest(workdir)
            odd = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
            for row in rows:
                if row["run"] == run:
                    row["end"] = "identical" if not odd else f"{len(odd)} differ, first {odd[0]}"
    title = f"Killed at random, {datetime.date.today()}; undisturbed {seconds:.0f} s"
    report(title, rows, arguments.out, packages=("jax", "flax", "optax", "orbax-checkpoint", "grain"))
    raise SystemExit(any(row["end"] != "identical" for row in rows))


if __name__ == "__main__":
    main()
