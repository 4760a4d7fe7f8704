"""Reading images in processes, and in the order of blocks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.models.flat_arrays import split
from transfer_jax.report.progress import Silent
from transfer_jax.runs import fit
from transfer_jax.runs.result import Result
from transfer_jax.weights.saved_model import SavedModel


class Stop(Silent):
    """Stops a run after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left, self.training = steps, False

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.training = task.startswith("training")

    def advance(self, images: int, **values: float) -> None:
        self.left -= self.training
        if self.training and self.left <= 0:
            raise InterruptedError


@pytest.fixture
def config(image_folder: Path, toy: str) -> TrainConfig:
    phase = Phase(name="all", train="all_()", epochs=3, learning_rate=0.01)
    settings = {"batch_size": 8, "threads": 1, "checkpoint_seconds": 0.0, "keep_epoch": "last"}
    return TrainConfig(
        images=str(image_folder), model=toy, weights="none", schedule=Schedule((phase,)), **settings
    )


def arrays(result: Result) -> dict[str, np.ndarray]:
    _, params, stats = split(SavedModel.load(result.workdir)[1])
    return {path: np.asarray(array) for path, array in {**params, **stats}.items()}


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path])


@pytest.mark.parametrize(
    "changes", [pytest.param({"read_processes": 1}, marks=pytest.mark.extended), {"order": "blocks"}]
)
def test_a_run_resumes_in_the_middle_of_an_epoch(config, tmp_path, changes):
    changed = dataclasses.replace(config, **changes)
    with pytest.raises(InterruptedError):
        fit(changed, tmp_path / "stopped", progress=Stop(7))
    whole = arrays(fit(dataclasses.replace(changed, read_processes=0), tmp_path / "whole"))
    assert_equal(arrays(fit(changed, tmp_path / "stopped")), whole)


def test_another_order_is_refused_when_a_run_resumes(config, tmp_path):
    with pytest.raises(InterruptedError):
        fit(config, tmp_path, progress=Stop(2))
    with pytest.raises(ValueError, match="order"):
        fit(dataclasses.replace(config, order="blocks"), tmp_path)
