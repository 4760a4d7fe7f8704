"""What does a run with many classes cost: its features, its training, and its end?

    python benchmarks/data_scale.py end
    python benchmarks/data_scale.py end --train 1281167 --width 1280 --stored float16 --epochs 1 \
        --kill-extracting 60 --kill 600 --compare --picture report.png

Examples are random ones around a centre for each class. Their features are cached, a head is trained on them,
and the run ends as any run does: the validation images are scored, the model, the predictions and the last
checkpoint are written, and the report is drawn. With `--kill-extracting` and `--kill` the run is killed with
SIGKILL while it caches features and in the middle of its training, and resumed; `--compare` trains again from
the same features without a disturbance, and compares the scores and the head. `--picture` opens the report in
a browser (playwright, Chromium).
"""

import argparse
import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

_EVERY = 0.02
"""Seconds between measurements of the memory."""
_NOISE = 2.5
"""Standard deviation of 128 numbers around their centre; it grows with the root of the width."""


class Names(Sequence[str]):
    """The names of examples, by rule."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        found = self._numbers[index]
        return f"example {found}" if isinstance(index, int | np.integer) else Names(found)


class Memory:
    """The memory of this process without mapped files, and its largest value while it is watched."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self.start = self.peak = _memory()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            self.peak = max(self.peak, _memory())

    def end(self) -> int:
        """Stops watching, and returns by how many bytes the memory grew at most."""
        self._stop.set()
        self._thread.join()
        return self.peak - self.start


def _memory() -> int:
    found = psutil.Process().memory_info()
    return found.rss - getattr(found, "shared", 0)


def examples(train: int, held_out: int, classes: int, width: int) -> Any:
    """Returns examples of classes that a head can partly learn, each computed when it is read."""
    from transfer_jax.data import ImageDataset
    from transfer_jax.data.input_arrays import InputSpec

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((classes, width), np.float32)
    total = train + held_out
    labels = rng.permutation(np.arange(total) % classes).astype(np.int32)
    labels[:classes] = np.arange(classes)  # Each class has a training example.
    spread = np.float32(_NOISE * (width / 128) ** 0.5)

    def read(index: int) -> dict[str, np.ndarray]:
        noise = np.random.default_rng(index).standard_normal(width, np.float32)
        return {"features": centres[labels[index]] + spread * noise}

    return ImageDataset(
        read=read,
        labels=labels,
        names=Names(np.arange(total)),
        class_names=tuple(f"n{index:08}" for index in range(classes)),
        fingerprint=f"data_scale_end {train} {held_out} {classes} {width}",
        held_out=np.arange(total) >= train,
        inputs={"features": InputSpec((width,), np.dtype("float32"))},
    )


def model(width: int) -> Any:
    """Returns a frozen network of one layer, a scale of each number."""
    import transfer_jax as tj

    params = {"layer": {"scale": np.random.default_rng(1).uniform(0.5, 1, width).astype(np.float32)}}
    batch = {"features": np.zeros((2, width), np.float32)}

    def network(params: Any, state: Any, batch: Any, key: Any) -> Any:
        return batch["features"] * params["layer"]["scale"], state

    return tj.own_model((network, params, {}), inputs=("features",), batch=batch)


@contextlib.contextmanager
def measured(ends: dict[str, Any]) -> Iterator[None]:
    """Measures the CPU seconds and the memory from the last training step of a run to its end."""
    from transfer_jax.runs.loop import Loop

    end_phase, train = Loop._end_phase, Loop.train

    def timed_end(self: Loop, *args: Any) -> Any:
        ends["memory"], ends["started"] = Memory(), time.process_time()
        return end_phase(self, *args)

    def timed_train(self: Loop) -> None:
        train(self)
        ends["cpu_seconds"] = round(time.process_time() - ends.pop("started"), 1)
        ends["extra_gigabytes"] = round(ends.pop("memory").end() / 1e9, 3)

    Loop._end_phase, Loop.train = timed_end, timed_train  # type: ignore[method-assign]
    try:
        yield
    finally:
        Loop._end_phase, Loop.train = end_phase, train  # type: ignore[method-assign]


def run(arguments: argparse.Namespace, workdir: Path) -> dict[str, Any]:
    """Trains or resumes the run in this process, and returns its measurements."""
    import transfer_jax as tj

    ends: dict[str, Any] = {}
    phase = tj.Phase(name="head", train="head", epochs=arguments.epochs, learning_rate=arguments.rate)
    config = tj.TrainConfig(
        images="examples",
        schedule=tj.Schedule((phase,)),
        batch_size=arguments.batch,
        checkpoint_seconds=arguments.checkpoint_seconds,
        feature_dir=str(workdir.parent / "features"),
        feature_precision=arguments.stored,
        feature_tier=arguments.tier,
    )
    dataset = examples(arguments.train, arguments.held_out, arguments.classes, arguments.width)
    with measured(ends):
        result = tj.fit(config, workdir, dataset=dataset, model=model(arguments.width))
    kinds = (".csv", ".parquet", ".html", ".jsonl", ".npz")
    sizes = {path.name: path.stat().st_size for path in workdir.iterdir() if path.suffix in kinds}
    records = [*(workdir / "checkpoints" / "records").glob("*.json")]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "end": ends,
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gigabytes": round(usage.ru_maxrss * 1024 / 1e9, 2),
        "seconds": json.loads((workdir / "goodput.json").read_text(encoding="utf-8"))["seconds"],
        "accuracy": result.metrics["accuracy"],
        "log_loss": result.metrics["log_loss"],
        "head": _digest(workdir / "model"),
        "checkpoint_json_bytes": max(path.stat().st_size for path in records),
        "bytes": sizes,
    }


def _digest(folder: Path) -> str:
    """Returns a hash of the arrays of a trained model."""
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]


_OPTIONS = (
    "train",
    "held_out",
    "classes",
    "width",
    "stored",
    "tier",
    "batch",
    "rate",
    "epochs",
    "checkpoint_seconds",
)
"""The options that a run in a process of its own receives."""


def in_process(
    arguments: argparse.Namespace, workdir: Path, kill: Callable[[], bool] | None = None
) -> dict[str, Any]:
    """Runs in a process of its own, which is killed once `kill` returns True."""
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in _OPTIONS]
    command = [sys.executable, __file__, "--here", str(workdir), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while kill is not None and process.poll() is None:
            if kill():
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        out, _ = process.communicate()
    finally:
        process.kill()
    if process.returncode == -signal.SIGKILL:
        return {"killed": True}
    if process.returncode:
        raise RuntimeError(f"the run ended with exit code {process.returncode}")
    return json.loads(out.splitlines()[-1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the subcommand `end`."""
    parser.add_argument("--train", type=int, default=100_000, help="number of training examples")
    parser.add_argument("--held-out", type=int, default=50_000, help="number of validation examples")
    parser.add_argument("--classes", type=int, default=1_000, help="number of classes")
    parser.add_argument("--width", type=int, default=128, help="numbers of an example, and of its features")
    parser.add_argument("--stored", default="auto", help="the precision of the cached features")
    parser.add_argument("--tier", default="auto", help="where the features are during training")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=1e-2, help="learning rate")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--checkpoint-seconds", type=float, default=30.0)
    parser.add_argument("--kill", type=int, default=0, help="step from which a saved run is killed")
    parser.add_argument("--kill-extracting", type=int, default=0, help="files of features before a kill")
    parser.add_argument("--compare", action="store_true", help="train without a disturbance as well")
    parser.add_argument("--picture", type=Path, help="PNG file of the report in a browser")
    parser.add_argument("--folder", type=Path, help="folder that keeps the run; a temporary one by default")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the measurements of the subcommand `end`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        workdir = folder / "run"
        shards = lambda: len([*(folder / "features").glob("*/shard-*.npy")])  # noqa: E731
        if arguments.kill_extracting:
            _killed(arguments, workdir, lambda: shards() >= arguments.kill_extracting)
        if arguments.kill:
            _killed(arguments, workdir, lambda: _saved(workdir) >= arguments.kill)
        found = in_process(arguments, workdir)
        if arguments.compare:
            other = in_process(arguments, folder / "undisturbed")
            names = ("accuracy", "log_loss", "head")
            found["same result"] = {name: found[name] == other[name] for name in names}
            found["undisturbed"] = {
                name: other[name] for name in ("cpu_seconds", "peak_gigabytes", "seconds")
            }
        if arguments.picture:
            found["browser"] = opened(workdir / "report.html", arguments.picture)
    shown = ("train", "held_out", "classes", "width", "epochs", "kill_extracting", "kill")
    return {**{name: getattr(arguments, name) for name in shown}, **found}


def _killed(arguments: argparse.Namespace, workdir: Path, kill: Callable[[], bool]) -> None:
    if not in_process(arguments, workdir, kill).get("killed"):
        raise RuntimeError("the run ended before it was killed; train more, or save more often")


def _saved(workdir: Path) -> int:
    """Returns the step of the last checkpoint; 0 without one."""
    records = workdir / "checkpoints" / "records"
    steps = [int(path.stem) for path in records.glob("*.json")] if records.is_dir() else []
    return max(steps, default=0)


def opened(report: Path, picture: Path) -> dict[str, Any]:
    """Opens a report in a browser, writes a picture of it, and returns its seconds and its messages."""
    from playwright import sync_api

    found: dict[str, Any] = {"messages": []}
    with sync_api.sync_playwright() as started:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.on("console", lambda message: found["messages"].append(message.text))
        page.on("pageerror", lambda error: found["messages"].append(str(error)))
        start = time.perf_counter()
        page.goto(report.absolute().as_uri())
        page.wait_for_function("document.documentElement.dataset.charts")
        found["seconds"] = round(time.perf_counter() - start, 2)
        found["elements"] = page.evaluate("document.querySelectorAll('*').length")
        page.screenshot(path=picture, full_page=True)
        browser.close()
    return found


def main() -> None:
    """Runs one end of a run, in this process with `--here`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    found = run(arguments, arguments.here) if arguments.here else measure(arguments)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
