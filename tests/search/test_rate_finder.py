import hashlib
import json

import numpy as np
import pytest

from transfer_jax import TrainConfig, fit
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.report.progress import Silent
from transfer_jax.search.rate_finder import RateCurve, find_rate

pytestmark = pytest.mark.usefixtures("toy")
SCHEDULE = Schedule(
    (
        Phase(name="head", train="head", epochs=2, learning_rate=0.01, optimizer="sgd"),
        Phase(name="top", train="top(1)", epochs=2, learning_rate=0.001, layer_decay=0.5),
    )
)


class Stopping(Silent):
    """A progress that raises an error after some steps of a task."""

    def __init__(self, task: str, after: int) -> None:
        self.task, self.left, self.now = task, after, ""

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.now = task

    def advance(self, images: int, **values: float) -> None:
        self.left -= self.now == self.task
        if self.left < 0:
            raise RuntimeError


def config_of(folder, **changes) -> TrainConfig:
    return TrainConfig(
        images=str(folder),
        **{"model": "toy", **changes},
        weights="none",
        schedule=SCHEDULE,
        batch_size=12,
        checkpoint_seconds=0,
        threads=1,
    )


def contents(folder) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_curve_by_hand():
    losses = (1.0, 0.9, 0.5, 0.4, 0.3, 0.6)
    curve = RateCurve("p", tuple(10.0**power for power in range(-6, 0)), losses)
    assert curve.lowest == 1e-2
    assert curve.steepest == 1e-5  # from 1.0 to 0.5 in the two decades around it
    assert json.loads(curve.to_json())["lowest"] == 1e-2


def test_rates_of_the_first_phase(image_folder, tmp_path):
    config = config_of(image_folder, model="efficientnet_lite_tiny")  # the toy does not diverge
    curve = find_rate(config, progress=Silent(), lowest=1e-4, highest=1e4, steps=30)
    assert curve.phase == "head"
    assert len(curve.rates) < 30  # it ends where the loss diverges
    assert np.allclose(np.diff(np.log(curve.rates)), np.log(1e8) / 29)
    assert curve.losses[-1] > curve.losses[0]
    again = find_rate(config, progress=Silent(), lowest=1e-4, highest=1e4, steps=30)
    assert again == curve


@pytest.mark.parametrize("steps", [0, 2])
def test_finding_a_rate_does_not_change_a_run(image_folder, tmp_path, steps):
    config, asked, other = config_of(image_folder, ema_decay=0.9), tmp_path / "asked", tmp_path / "other"
    fit(config, other)
    with pytest.raises(RuntimeError):
        fit(config, asked, progress=Stopping("training top", steps))
    before = contents(asked)
    curve = find_rate(config, "top", workdir=asked, progress=Silent(), steps=5)
    assert len(curve.rates) == 5
    assert contents(asked) == before
    fit(config, asked)
    for name in ("model/weights.safetensors", "metrics.jsonl", "predictions.csv"):
        assert (asked / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phase": "tail"}, "no phase 'tail'; the phases are head, top"),
        ({"phase": "top"}, "starts from the result of the phases before it"),
        ({"lowest": 1.0, "highest": 0.1}, "they must grow"),
        ({"steps": 2}, "in at least 3 steps"),
    ],
)
def test_invalid_arguments(image_folder, settings, message):
    with pytest.raises(ValueError, match=message):
        find_rate(config_of(image_folder), progress=Silent(), **settings)


def test_a_run_that_has_not_reached_the_phase(image_folder, tmp_path):
    config = config_of(image_folder)
    fit(config, tmp_path)
    with pytest.raises(ValueError, match=r"is at its end, not at phase 'top'"):
        find_rate(config, "top", workdir=tmp_path, progress=Silent())
