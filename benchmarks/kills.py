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

With `--bucket` a small network trains on images and cached features in a bucket of a server of S3 on this
machine. Each run makes the index of the images, and its local cache holds a fifth of them, so that training
reads from the bucket. Half of the kills come when a request arrives at the server, the others after a random
time. Faults of the server, errors and connections that end early, hit a hundredth of the requests that read.
"""

import argparse
import contextlib
import dataclasses
import datetime
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from contest import report
from PIL import Image
from s3_server import Fault, Server, serving

CONFIG = """
from transfer_jax import Phase, Schedule, TrainConfig

config = TrainConfig(
    images={images!r},
    model={model!r},
    weights={weights!r},
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
NETWORK = """
import flax.linen as nn
import jax
import jax.numpy as jnp

import transfer_jax as tj


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (8, 8, 12, 12, 16):
            x = nn.relu(nn.GroupNorm(2)(nn.Conv(width, (3, 3), strides=1 + width % 8 // 4)(x)))
        return nn.Dense(10)(x.mean((1, 2)))


def make():
    variables = Network().init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    small = tj.Preprocessing(image_size=32, mean=(127.5,) * 3, std=(127.5,) * 3)
    return tj.own_model(Network(), variables, head="Dense_0", preprocessing=small)
"""
CACHE = "0.00006"
"""Gigabytes of the cache of images from the bucket."""
_REQUESTS, _KILLS = 250, 7
"""In a bucket: the latest request at which a process is killed, and the most kills of a run."""
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


class Bucket:
    """A bucket with images and features, whose server counts requests, fails now and then, and kills.

    Args:
        folder: The folder of the buckets.
        chance: Chooses the faults.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.server, self.chance = Server(folder), chance
        self.images, self.last, self.left = folder / "bucket/images", "", 0
        self.kill: Callable[[], object] = lambda: None
        self.killed = threading.Event()
        self.server.look = self.look

    def look(self, method: str, name: str) -> Fault | None:
        """Kills at the chosen request; lets one request in a hundred fail."""
        self.last = f"{method} {name.removeprefix('bucket/')}"
        if self.left:
            self.left -= 1
            if not self.left:
                self.kill()
                self.killed.set()
        if method not in ("GET", "LIST") or self.chance.random() > 0.01:
            return None
        return self.chance.choice([Fault(status=500), Fault(status=503), Fault(sent=100)])

    def kill_at(self, count: int, kill: Callable[[], object]) -> None:
        """Kills when that many requests have come; 0 never does."""
        self.killed.clear()
        self.left, self.kill = count, kill

    def forget_index(self) -> None:
        """Deletes the index of the images."""
        shutil.rmtree(self.images / ".transfer_jax_index", ignore_errors=True)
        self.server.listings.clear()


def start(
    config: Path, workdir: Path, processes: int = 1, bucket: Bucket | None = None
) -> subprocess.Popen[bytes]:
    """Starts the command; every workdir has its own compilation cache, so that each run compiles."""
    command = [sys.executable, "-m", "transfer_jax.cli"]
    if processes > 1:
        command += ["launch", "--processes", str(processes), "--devices", "2", "--restarts", "1000"]
        command += ["--pause", "0.1", "--"]
    command += ["train", str(config), "--workdir", str(workdir)]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{workdir}.xla"}
    if bucket is not None:
        caches = {"TRANSFER_JAX_OBJECTS": f"{workdir}.objects", "TRANSFER_JAX_MIRRORS": f"{workdir}.mirrors"}
        environment |= {**caches, "TRANSFER_JAX_OBJECT_GIGABYTES": CACHE}
        paths = [str(workdir.parent), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        command += ["--feature-dir", f"s3://bucket/features/{workdir.name.replace(' ', '-')}"]
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


@dataclasses.dataclass
class Killer:
    """Chooses when and whom to kill.

    Attributes:
        chance: The source of all choices.
        seconds: The duration of the undisturbed run.
        bucket: The bucket of the run, if any.
    """

    chance: random.Random
    seconds: float
    bucket: Bucket | None = None

    def kills(self, process: subprocess.Popen[bytes], kill: Callable[[], object]) -> bool:
        """Waits for a random time or request and kills; returns False if the process ended before."""
        end = time.monotonic() + self.chance.uniform(0.02, 0.6) * self.seconds
        if self.bucket is not None:
            self.bucket.kill_at(self.chance.choice([0, self.chance.randint(1, _REQUESTS)]), kill)
        while time.monotonic() < end:
            if self.bucket is not None and self.bucket.killed.is_set():
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                return self.bucket is not None and self.bucket.killed.is_set()
        if self.bucket is not None:
            self.bucket.kill_at(0, kill)
        kill()
        return True

    def hit(self, workdir: Path, began: float) -> str:
        """Returns what a kill interrupted."""
        found = where(workdir, began)
        if self.bucket is None:
            return found
        moment = "at the request" if self.bucket.killed.is_set() else "after"
        return f"{found}, {moment} {self.bucket.last}"


def survive(config: Path, workdir: Path, killer: Killer, most: int) -> Iterator[dict[str, Any]]:
    """Starts a run until it ends, killed at random moments; returns a row for each kill."""
    for _ in range(most):
        began, process = time.time(), start(config, workdir, bucket=killer.bucket)
        if not killer.kills(process, process.kill):
            check(process.wait(), workdir)
            return
        process.wait()
        yield {"after s": f"{time.time() - began:.1f}", "hit": killer.hit(workdir, began)}
    check(start(config, workdir, bucket=killer.bucket).wait(), workdir)


def survive_together(
    config: Path, workdir: Path, killer: Killer, most: int, processes: int
) -> Iterator[dict[str, Any]]:
    """Runs several processes, kills some of them at random moments, and returns a row for each kill."""
    launcher, seen = start(config, workdir, processes, killer.bucket), set()
    choose = killer.chance.choice
    for _ in range(most):
        began, which = time.time(), choose([slice(0, 1), slice(-1, None), slice(None)])
        number = signal.SIGKILL if which == slice(None) else choose([signal.SIGKILL, signal.SIGTERM])

        def kill(which: slice = which, number: signal.Signals = number) -> None:
            workers = psutil.Process(launcher.pid).children()
            seen.update(workers)
            for worker in workers[which]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.send_signal(number)

        if not killer.kills(launcher, kill):
            break
        what = f"{number.name} to {'both' if which == slice(None) else 'one'}"
        yield {"after s": f"{time.time() - began:.1f}", "hit": f"{killer.hit(workdir, began)}, {what}"}
    check(launcher.wait(), workdir)
    if left := [worker for worker in seen if worker.is_running()]:
        raise SystemExit(f"left behind: {left}")


def check(code: int, workdir: Path) -> None:
    """Raises an error with the end of the log if the command failed."""
    if code:
        raise SystemExit(f"exit code {code}:\n{Path(f'{workdir}.log').read_text()[-3000:]}")


def compare(
    kills: int, seed: int, scratch: Path, processes: int, bucket: Bucket | None
) -> tuple[list[dict[str, Any]], float]:
    """Returns a row for each kill, and the seconds of the undisturbed run."""
    config, whole = scratch / "config.py", scratch / "whole"
    images = scratch / "images" if bucket is None else bucket.images
    draw(images)
    settings = {"images": str(images), "model": "efficientnet_lite_tiny", "weights": "none"}
    if bucket is not None:
        settings = {"images": "s3://bucket/images", "model": "networks:make", "weights": "auto"}
        (scratch / "networks.py").write_text(NETWORK)
    config.write_text(CONFIG.format(**settings))
    began = time.monotonic()
    check(start(config, whole, processes, bucket).wait(), whole)
    killer = Killer(random.Random(seed), time.monotonic() - began, bucket)
    expected = digest(whole)
    rows: list[dict[str, Any]] = []
    runs = itertools.count()
    while len(rows) < kills:
        workdir = scratch / f"run {next(runs)}"
        killed = []
        most = kills - len(rows)
        if bucket is not None:
            most = min(most, _KILLS)
            bucket.forget_index()
        found = survive(config, workdir, killer, most)
        if processes > 1:
            found = survive_together(config, workdir, killer, most, processes)
        for row in found:
            killed.append({"kill": len(rows) + len(killed) + 1, **row})
            print(killed[-1], flush=True)
        ended = digest(workdir)
        odd = [name for name in sorted({*ended, *expected}) if ended.get(name) != expected.get(name)]
        end = f"{len(odd)} differ, first {odd[0]}" if odd else "identical"
        rows += [{**row, "end": end} for row in killed]
    return rows, killer.seconds


@contextlib.contextmanager
def served(folder: Path, chance: random.Random) -> Iterator[Bucket]:
    """Runs the server of a bucket, which the commands find by their environment."""
    bucket = Bucket(folder, chance)
    with serving(bucket.server) as port:
        os.environ |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        yield bucket


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="processes of a run")
    parser.add_argument("--bucket", action="store_true", help="images and features in a bucket")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder, bucket = Path(scratch), None
        if arguments.bucket:
            bucket = stack.enter_context(served(folder / "buckets", random.Random(arguments.seed)))
        rows, seconds = compare(arguments.kills, arguments.seed, folder, arguments.processes, bucket)
    title = f"Killed at random, {datetime.date.today()}; undisturbed {seconds:.0f} s"
    report(title, rows, arguments.out, packages=("jax", "flax", "optax", "orbax-checkpoint", "grain"))
    raise SystemExit(any(row["end"] != "identical" for row in rows))


if __name__ == "__main__":
    main()
