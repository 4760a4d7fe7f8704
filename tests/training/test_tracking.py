"""Values that a tracker receives from a run that is stopped in the middle and resumed."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.report.progress import Silent
from transfer_jax.report.trackers import TRACKERS
from transfer_jax.runs import fit


class Book:
    """A tracker that records the values it receives."""

    told: ClassVar[list[tuple[int, dict[str, float]]]] = []
    pictures: ClassVar[list[str]] = []
    ends: ClassVar[list[bool]] = []

    def __init__(self, id: str) -> None:
        self.id = id

    def log(self, step, values):
        self.told.append((step, dict(values)))

    def log_image(self, step, path):
        self.pictures.append(path.name)

    def close(self, *, finished):
        self.ends.append(finished)


class Stop(Silent):
    """Stops a run at the start of its second phase."""

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        if task == "training two":
            raise InterruptedError


def test_trackers_of_a_run_that_is_stopped_and_resumed(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[Any] = []

    def open_book(workdir, config, known):
        opened.append((workdir.name, config["images"], known))
        return Book(known or "first")

    monkeypatch.setitem(TRACKERS, "wandb", ("json", open_book))
    phases = (Phase(name=name, train="head", epochs=2, learning_rate=0.1) for name in ("one", "two"))
    config = TrainConfig(
        images=str(image_folder),
        model="efficientnet_lite_tiny",
        weights="none",
        schedule=Schedule(tuple(phases)),
        trackers=("wandb",),
    )
    with pytest.raises(InterruptedError):
        fit(config, tmp_path / "run", progress=Stop())
    assert Book.ends == [False]
    result = fit(config, tmp_path / "run")
    assert Book.ends == [False, True]
    assert opened == [("run", str(image_folder), None), ("run", str(image_folder), "first")]

    lines = read_metrics(tmp_path / "run/metrics.jsonl")
    losses = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    told = [(step, values["train/loss"]) for step, values in Book.told if "train/loss" in values]
    assert told == losses
    assert len(told) == 4
    step, final = Book.told[-1]
    assert (step, final["final/accuracy"]) == (4, result.metrics["accuracy"])
    assert {"curves.png", "confusion.png"} <= {*Book.pictures}
    fit(config, tmp_path / "run")  # It is finished, and only read.
    assert len(opened) == 2
