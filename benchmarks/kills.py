"""Does a run that is killed at any moment end like one that is not?

    python benchmarks/kills.py --kills 20 --out kills.json

Trains a schedule of four phases on the tiny network and coloured noise: a head on cached views, the whole
network under a controller that moves the frozen depth, a part with rates scaled by gradients and
interpolated weights, and low-rank updates. The first run is undisturbed. Then the command is killed with
SIGKILL at random moments and started again until it ends, in several runs if one ends before that many
kills. Model, predictions, log with the order of the images, freeze records and the last checkpoint
(parameters and optimizer state) must be the same, bit for bit. A row says what each kill interrupted:
start, compilation, training or saving.

With `--processes 2` the command is `transfer-jax launch`. Each time the first process, the second or both
are killed, or one gets SIGTERM, and the launcher starts them again. No process may be left at the end.
"""

import argparse
import contextlib
import datetime
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
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
    """Writes images whose colour is their class."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("blue", "green", "red")):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = rng.integers(0, 120, (40, 40, 3))
            pixels[..., 2 - label] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:02}.png")


def start(config: Path, workdir: Path, processes: int = 1) -> subprocess.Popen[bytes]:
    """Starts the command; every workdir has its own compilation cache, so that each run compiles."""
    command = [sys.executable, "-m", "transfer_jax.cli"]
    if processes > 1:
        command += ["launch", "--processes", str(processes), "--devices", "2", "--restarts", "1000"]
        command += ["--pause", "0.1", "--"]
    command += ["train", str(config), "--workdir", str(workdir)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{workdir}.xla"}
    with Path(f"{workdir}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def where(workdir: Path, began: float) -> str:
    """Returns what a kill interrupted, from the files of the run."""
    steps = workdir / "checkpoints" / "steps"
    saved = [path for path in steps.glob("*") if path.name.isdigit()] if steps.is_dir() else []
    unfinished = steps.is_dir() and len(saved) < len([*steps.iterdir()])
    checked = {path.stem for path in (workdir / "checkpoints" / "records").glob("*.json")}
    if unfinished or any(path.name not in checked for path in saved):
        return "saving"
    newest = max((path.stat().st_mtime for path in saved), default=0.0)
    if newest > began:
        return "training"
    return "compiling" if saved or (workdir / "features").is_dir() else "starting"


def digest(workdir: Path) -> dict[str, Any]:
    """Returns everything that must be the same."""
    from transfer_jax.freezing.freeze_check import array_hashes
    from transfer_jax.storage.atomic_write import sha256
    from transfer_jax.storage.checkpoints import Checkpoints

    names = [*FILES, *(str(path.relative_to(workdir)) for path in (workdir / "certificates").iterdir())]
    found: dict[str, Any] = {name: sha256(workdir / name) for name in sorted(names)}
    checkpoints = Checkpoints(workdir / "checkpoints")
    latest = checkpoints.latest()
    assert latest is not None
    for name in ("carried", "ended"):
        arrays = checkpoints.arrays(latest, name)
        found |= {f"{name} {path}": value for path, value in array_hashes(arrays).items()}
    return found


def survive(config: Path, workdir: Path, limits: Iterator[float], most: int) -> Iterator[dict[str, Any]]:
    """Starts a run until it ends, killed after each limit in seconds; returns a row for each kill."""
    kills = 0
    while True:
        began, process = time.time(), start(config, workdir)
        try:
            check(process.wait(next(limits) if kills < most else None), workdir)
            return
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            yield {"after s": f"{time.time() - began:.1f}", "hit": where(workdir, began)}


def survive_together(
    config: Path, workdir: Path, limits: Iterator[float], most: int, processes: int, chance: random.Random
) -> Iterator[dict[str, Any]]:
    """Runs several processes, kills some of them after each limit, and returns a row for each kill."""
    launcher, seen = start(config, workdir, processes), set()
    for _ in range(most):
        began = time.time()
        with contextlib.suppress(subprocess.TimeoutExpired):
            launcher.wait(next(limits))
            break
        workers = psutil.Process(launcher.pid).children()
        seen.update(workers)
        who = chance.choice([workers[:1], workers[-1:], workers])
        number = signal.SIGKILL if len(who) > 1 else chance.choice([signal.SIGKILL, signal.SIGTERM])
        for worker in who:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.send_signal(number)
        what = f"{number.name} to {'both' if len(who) > 1 else 'one'}"
        yield {"after s": f"{time.time() - began:.1f}", "hit": f"{where(workdir, began)}, {what}"}
    check(launcher.wait(), workdir)
    if left := [worker for worker in seen if worker.is_running()]:
        raise SystemExit(f"left behind: {left}")


def check(code: int, workdir: Path) -> None:
    """Raises an error with the end of the log if the command failed."""
    if code:
        raise SystemExit(f"exit code {code}:\n{Path(f'{workdir}.log').read_text()[-3000:]}")


def compare(kills: int, seed: int, scratch: Path, processes: int) -> tuple[list[dict[str, Any]], float]:
    """Returns a row for each kill, and the seconds of the undisturbed run."""
    images, config, whole = scratch / "images", scratch / "config.py", scratch / "whole"
    draw(images)
    config.write_text(CONFIG.format(images=str(images)))
    began = time.monotonic()
    check(start(config, whole, processes).wait(), whole)
    seconds = time.monotonic() - began
    expected = digest(whole)
    chance = random.Random(seed)
    limits = (chance.uniform(0.02, 0.6) * seconds for _ in itertools.count())
    rows: list[dict[str, Any]] = []
    runs = itertools.count()
    while len(rows) < kills:
        workdir = scratch / f"run {next(runs)}"
        killed = []
        most = kills - len(rows)
        found = survive(config, workdir, limits, most)
        if processes > 1:
            found = survive_together(config, workdir, limits, most, processes, chance)
        for row in found:
            killed.append({"kill": len(rows) + len(killed) + 1, **row})
            print(killed[-1], flush=True)
        ended = digest(workdir)
        odd = [name for name in sorted({*ended, *expected}) if ended.get(name) != expected.get(name)]
        end = f"{len(odd)} differ, first {odd[0]}" if odd else "identical"
        rows += [{**row, "end": end} for row in killed]
    return rows, seconds


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="processes of a run")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows, seconds = compare(arguments.kills, arguments.seed, Path(scratch), arguments.processes)
    title = f"Killed at random, {datetime.date.today()}; undisturbed {seconds:.0f} s"
    report(title, rows, arguments.out, packages=("jax", "flax", "optax", "orbax-checkpoint", "grain"))
    raise SystemExit(any(row["end"] != "identical" for row in rows))


if __name__ == "__main__":
    main()
