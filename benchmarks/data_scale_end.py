"""What does the end of a run with many classes cost: its scores, predictions, checkpoints and report?

A head is trained on cached features, random ones around a centre for each class, and the run ends as any run
does: the validation images are scored, the model, the predictions and the last checkpoint are written, and
the report is drawn. With `--kill` the run is killed with SIGKILL in the middle of its training, and resumed.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

WIDTH = 128
"""Numbers of an example; the features at the boundary are as many."""
_EVERY = 0.02
"""Seconds between measurements of the memory."""


class Memory:
    """The resident memory of this process, and its largest value while it is watched."""

    def __init__(self) -> None:
        self._process, self._stop = psutil.Process(), threading.Event()
        self.start = self.peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def end(self) -> int:
        """Stops watching, and returns by how many bytes the memory grew at most."""
        self._stop.set()
        self._thread.join()
        return self.peak - self.start


def examples(train: int, held_out: int, classes: int) -> Any:
    """Returns examples of classes that a head can partly learn, each computed when it is read."""
    from transfer_jax.data import ImageDataset
    from transfer_jax.data.input_arrays import InputSpec

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, WIDTH)).astype(np.float32)
    total = train + held_out
    labels = rng.permutation(np.arange(total) % classes).astype(np.int32)
    labels[:classes] = np.arange(classes)  # Each class has a training example.

    def read(index: int) -> dict[str, np.ndarray]:
        noise = np.random.default_rng(index).normal(size=WIDTH).astype(np.float32)
        return {"features": centres[labels[index]] + 2 * noise}

    return ImageDataset(
        read=read,
        labels=labels,
        names=[f"example {index}" for index in range(total)],
        class_names=tuple(f"n{index:08}" for index in range(classes)),
        fingerprint=f"data_scale_end {train} {held_out} {classes}",
        held_out=np.arange(total) >= train,
        inputs={"features": InputSpec((WIDTH,), np.dtype("float32"))},
    )


def model() -> Any:
    """Returns a frozen network of one matrix."""
    import transfer_jax as tj

    weights = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    params = {"layer": {"kernel": weights.astype(np.float32)}}
    batch = {"features": np.zeros((2, WIDTH), np.float32)}

    def network(params: Any, state: Any, batch: Any, key: Any) -> Any:
        return batch["features"] @ params["layer"]["kernel"], state

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
    """Trains or resumes the run in this process, and returns the measurements of its end."""
    import transfer_jax as tj

    ends: dict[str, Any] = {}
    phase = tj.Phase(name="head", train="head", epochs=arguments.epochs, learning_rate=1e-2)
    config = tj.TrainConfig(
        images="examples",
        schedule=tj.Schedule((phase,)),
        batch_size=1024,
        checkpoint_seconds=arguments.checkpoint_seconds,
    )
    dataset = examples(arguments.train, arguments.held_out, arguments.classes)
    with measured(ends):
        result = tj.fit(config, workdir, dataset=dataset, model=model())
    kinds = (".csv", ".parquet", ".html", ".jsonl", ".npz")
    sizes = {path.name: path.stat().st_size for path in workdir.iterdir() if path.suffix in kinds}
    records = [*(workdir / "checkpoints" / "records").glob("*.json")]
    return {
        **ends,
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2),
        "accuracy": result.metrics["accuracy"],
        "log_loss": result.metrics["log_loss"],
        "checkpoint_json_bytes": max(path.stat().st_size for path in records),
        "bytes": sizes,
    }


def in_process(arguments: argparse.Namespace, workdir: Path, *, kill_at: int = 0) -> dict[str, Any]:
    """Runs in a process of its own, which is killed once it has saved `kill_at` times."""
    names = ("train", "held_out", "classes", "epochs", "checkpoint_seconds")
    options = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    command = [sys.executable, __file__, "--here", str(workdir), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while kill_at and process.poll() is None:
        records = workdir / "checkpoints" / "records"
        if records.is_dir() and any(int(path.stem) >= kill_at for path in records.glob("*.json")):
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    out, _ = process.communicate()
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
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--checkpoint-seconds", type=float, default=30.0)
    parser.add_argument("--kill", type=int, default=0, help="step from which a saved run is killed")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the measurements of the subcommand `end`."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        killed = in_process(arguments, workdir, kill_at=arguments.kill) if arguments.kill else {}
        if arguments.kill and not killed.get("killed"):
            raise RuntimeError("the run ended before it was killed; train more, or save more often")
        found = in_process(arguments, workdir)
    shown = {name: getattr(arguments, name) for name in ("train", "held_out", "classes", "epochs", "kill")}
    return {**shown, **found}


def main() -> None:
    """Runs one end of a run, in this process with `--here`."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    found = run(arguments, arguments.here) if arguments.here else measure(arguments)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
