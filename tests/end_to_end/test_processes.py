"""Several processes do what one does, and go on when one of them is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from transfer_jax import Augmentation, Phase, Schedule, TrainConfig, fit
from transfer_jax.distributed.processes import INDEX

pytestmark = pytest.mark.extended

# Cached features, then live images whose normalization sees the whole batch: 100 steps.
SCHEDULE = Schedule(
    (
        Phase(name="head", train="head", epochs=10, learning_rate=0.01, cache="require"),
        Phase(
            name="top",
            train="top(2)",
            epochs=10,
            optimizer="sgd",
            learning_rate=1e-4,
            norm="train",
            augment=True,
        ),
    )
)
RESULTS = ("model/weights.safetensors", "model/model.json", "metrics.jsonl", "predictions.csv")


@pytest.fixture(scope="module")
def config(images: Path, weights: Path) -> TrainConfig:
    return TrainConfig(
        images=str(images),
        model="efficientnet_lite_tiny",
        weights=str(weights),
        schedule=SCHEDULE,
        augmentation=Augmentation(mixup=0.2),
        batch_size=8,
        dropout=0.3,
        drop_path=0.2,
    )


@pytest.fixture(scope="module")
def command(
    config: TrainConfig, write_config: Callable, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    return ["train", str(write_config(tmp_path_factory.mktemp("config") / "config.py", config))]


@pytest.fixture(scope="module")
def alone(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process on one device."""
    workdir = tmp_path_factory.mktemp("alone")
    fit(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def together(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in two processes of two devices each, undisturbed."""
    workdir = tmp_path_factory.mktemp("together")
    launcher = launch(command, workdir)
    assert launcher.wait(600) == 0
    return workdir


def launch(
    command: list[str], workdir: Path, *options: str, processes: int = 2, devices: int = 2
) -> subprocess.Popen:
    count = ["--processes", str(processes), "--devices", str(devices), "--pause", "0.1"]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "transfer_jax.cli", "launch", *count, "--"),
            *(*command, "--workdir", str(workdir), *options),
        ]
    )


def workers(launcher: subprocess.Popen) -> dict[int, psutil.Process]:
    """Its processes by their place."""
    found = {}
    for child in psutil.Process(launcher.pid).children():
        try:
            found[int(child.environ()[INDEX])] = child
        except (KeyError, psutil.Error):  # just begun, or at its end
            continue
    return found


def lines(workdir: Path, kind: str) -> list[dict]:
    path = workdir / "metrics.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in found if line["kind"] == kind]


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    return load_file(workdir / "model/weights.safetensors")


def assert_alike(found: Path, expected: Path) -> None:
    """The same but for the rounding of sums."""
    steps, known = (lines(workdir, "train") for workdir in (found, expected))
    assert [line["order"] for line in steps] == [line["order"] for line in known]
    np.testing.assert_allclose([x["loss"] for x in steps], [x["loss"] for x in known], rtol=0, atol=1e-5)
    scores, best = (lines(workdir, "evaluation")[-1] for workdir in (found, expected))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "confusion", "images"):
        assert scores[name] == best[name], name
    for path, array in arrays(expected).items():
        np.testing.assert_allclose(arrays(found)[path], array, rtol=0, atol=1e-4, err_msg=path)


@pytest.mark.parametrize("options", ["--strategy mesh --fsdp 4"])
def test_eight_devices_do_what_one_does(
    command: list[str], alone: Path, tmp_path: Path, options: str
) -> None:
    assert launch(command, tmp_path, *options.split(), processes=1, devices=8).wait(600) == 0
    assert_alike(tmp_path, alone)


def test_two_processes_do_what_one_does(alone: Path, together: Path) -> None:
    assert_alike(together, alone)
    assert len(list((together / "features").glob("[!.]*/manifest.json"))) == 2
    assert not list((together / "features").glob("*/*.note.json"))


@pytest.fixture(scope="module")
def stopped(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in two processes, told to make room in its second phase."""
    workdir = tmp_path_factory.mktemp("stopped")
    launcher = launch(command, workdir)
    while not training(workdir):
        assert launcher.poll() is None
        time.sleep(0.005)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(600) == 75
    (step,) = {int(path.stem) for path in (workdir / "checkpoints/records").glob("*.json")} - {50}
    assert 50 < step < 100
    return workdir


@pytest.mark.parametrize(("processes", "devices"), [(1, 8)])
def test_a_run_goes_on_with_other_devices(
    command: list[str], alone: Path, stopped: Path, tmp_path: Path, processes: int, devices: int
) -> None:
    workdir = tmp_path / "workdir"
    shutil.copytree(stopped, workdir)
    several = ("--strategy", "mesh") if devices > 1 else ()
    assert launch(command, workdir, *several, processes=processes, devices=devices).wait(600) == 0
    assert_alike(workdir, alone)


def extracting(workdir: Path) -> bool:
    return bool(list(workdir.glob("features/*/manifest.json")))


def training(workdir: Path) -> bool:
    return any(line["phase"] == "top" for line in lines(workdir, "train"))


def saving(workdir: Path) -> bool:
    return any(not path.name.isdigit() for path in workdir.glob("checkpoints/steps/*"))


@pytest.mark.parametrize(
    ("when", "places", "number"),
    [
        (extracting, [1], signal.SIGKILL),
        (saving, [0, 1], signal.SIGKILL),
        (training, [1], signal.SIGTERM),
    ],
)
def test_a_killed_process_changes_nothing(
    command: list[str], together: Path, tmp_path: Path, when: Callable, places: list[int], number: int
) -> None:
    launcher = launch(command, tmp_path, "--checkpoint-seconds", "0.5")
    while not when(tmp_path):
        assert launcher.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    found = workers(launcher)
    for place in places:
        os.kill(found[place].pid, number)
    assert launcher.wait(600) == 0
    assert not [process for process in found.values() if process.is_running()]
    for name in RESULTS:
        assert (tmp_path / name).read_bytes() == (together / name).read_bytes(), name
