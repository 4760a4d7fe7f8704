"""Schedules of published methods on the tiny network, interrupted at any step."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from transfer_jax import Phase, Schedule, TrainConfig, controller, create_model, fit
from transfer_jax.freezing.recipes import egeria
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.weights.saved_model import SavedModel


@controller
def two_up_one_down(history):
    """Freezes two more blocks at each test, and unfreezes one once."""
    return (2, 4, 3, 3, 3)[len(history) - 1]


SCHEDULE = Schedule(
    (
        Phase(name="head", train="head", epochs=2, learning_rate=0.01, augment=True, views=2),
        Phase(
            name="moving",
            train="all_()",
            epochs=2,
            learning_rate=1e-3,
            controller="two_up_one_down",
            tests_per_epoch=2,
            norm="train",
            cache="off",
            l2_sp=0.1,
        ),
        Phase(name="ratio", train="top(2)", epochs=2, learning_rate=1e-3, statistic="rgn", interpolate=0.5),
        Phase(
            name="low rank",
            train="head",
            epochs=1,
            learning_rate=1e-2,
            adapter="lora(blocks('blocks.11', 'top'))",
        ),
    )
)
FILES = ("model/weights.safetensors", "model/model.json", "metrics.jsonl", "predictions.csv")


class CrashError(Exception):
    pass


class Crashing:
    """Raises an error after a number of calls of `advance`, like a crash."""

    def __init__(self, after: int) -> None:
        self.left = after

    def start(self, task: str, total: int, *, done: int = 0) -> None: ...
    def finish(self) -> None: ...
    def log(self, message: str) -> None: ...

    def advance(self, images: int, **values: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise CrashError


def config_of(folder: Path, schedule: Schedule = SCHEDULE, **changes) -> TrainConfig:
    settings = {"model": "toy", "weights": "none", "batch_size": 9, "dropout": 0.2}
    return TrainConfig(
        **{"images": str(folder), "schedule": schedule, "threads": 1, "eval_every": 1, **settings, **changes}
    )


@pytest.fixture(scope="module")
def uninterrupted(toy, image_folder, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    fit(config_of(image_folder, ema_decay=0.9, measure_every=3), workdir)
    return workdir


def test_a_run_that_crashes_repeatedly_ends_the_same(image_folder, uninterrupted, tmp_path):
    """Alternates between checkpoints at every step and checkpoints at the ends of phases only."""
    config = config_of(image_folder, ema_decay=0.9, measure_every=3)
    crashes = 0
    while True:
        seconds = (0, 1000)[crashes % 2]
        try:
            fit(dataclasses.replace(config, checkpoint_seconds=seconds), tmp_path, progress=Crashing(15))
            break
        except CrashError:
            crashes += 1
            assert crashes < 20
    assert crashes >= 3
    for name in (
        *FILES,
        *(f"certificates/{path.name}" for path in (uninterrupted / "certificates").iterdir()),
    ):
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes(), name


def test_the_frozen_depth_follows_the_controller(uninterrupted, logged):
    tests = logged(uninterrupted, "test")
    assert [test["next_frozen_depth"] for test in tests] == [2, 4, 3]
    assert [test["frozen_depth"] for test in tests] == [0, 2, 4]
    assert [len(test["grad_norm"]) for test in tests] == [
        len(tests[0]["blocks"]) - frozen_depth for frozen_depth in (0, 2, 4)
    ]
    certificate = json.loads((uninterrupted / "certificates/02-moving.json").read_text())
    spans = certificate["spans"]
    assert [span["frozen_depth"] for span in spans] == [0, 2, 4, 3]
    assert [span["steps"] for span in spans] == [[0, 2], [2, 4], [4, 6], [6, 8]]
    trained = [len(span["trained"]["blocks"]) for span in spans]
    assert trained == [5 - frozen_depth for frozen_depth in (0, 2, 4, 3)]  # four blocks and the head
    for span in spans:
        assert span["frozen"]["sha256_before"] == span["frozen"]["sha256_after"]
    assert len({span["frozen"]["sha256_before"] for span in spans}) == 4
    sizes = [span["optimizer_bytes"] for span in spans]
    assert sizes[0] > sizes[1] > sizes[3] > sizes[2]


def test_logged_learning_rates(uninterrupted, logged):
    epochs = [line for line in logged(uninterrupted, "train") if line["phase"] == "moving"]
    assert [len(line["rates"]) for line in epochs] == [5, 2]
    first, second = (line["rates"] for line in epochs)
    assert first["head"] > second["head"] > 0
    half = [1e-3 * (1 + math.cos(math.pi * step / 8)) / 2 for step in (0, 1)]  # then it is frozen
    assert first["stem"] == pytest.approx(sum(half) / 4)
    assert "stem" not in second
    ratio = [line["rates"] for line in logged(uninterrupted, "train") if line["phase"] == "ratio"]
    assert all(rates["top"] < rates["head"] for rates in ratio)


def test_blocks_are_measured_at_the_configured_interval(uninterrupted, logged):
    found, steps_of_phases = logged(uninterrupted, "depth"), (8, 8, 8, 4)
    assert [line["step"] for line in found] == [
        sum(steps_of_phases[:index]) + step
        for index, steps in enumerate(steps_of_phases)
        for step in range(3, steps + 1, 3)
    ]
    for line in found:
        assert set(line["grad_norm"]) == set(line["rgn"]) == set(line["update"])
        assert all(value > 0 for value in line["grad_norm"].values())


def test_a_low_rank_phase_ends_in_plain_weights(uninterrupted):
    _, model = SavedModel.load(uninterrupted)
    _, params, _ = split(model)
    assert set(params) == set(split(create_model("toy", 3))[1])
    certificate = json.loads((uninterrupted / "certificates/04-low rank.json").read_text())
    (span,) = certificate["spans"]
    assert sorted(span["trained"]["blocks"]) == ["blocks.11", "head", "top"]
    kernels = [path for path in params if block_of(path) in ("blocks.11", "top") and path.endswith("kernel")]
    assert kernels
    assert not any("lora" in path for path in params)
    assert set(kernels) <= set(certificate["frozen"])  # the kernels themselves are frozen while it trains


def test_egeria_trains(toy, image_folder, tmp_path, logged):
    schedule = egeria(head_epochs=2, epochs=2, learning_rate=1e-3)
    result = fit(config_of(image_folder, schedule), tmp_path)
    assert len(result.phases) == len(schedule.phases)
    losses = [line["loss"] for line in logged(tmp_path, "train")]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_interpolation_lies_between_start_and_end(make_run):
    from transfer_jax.report.progress import Silent
    from transfer_jax.training.phase_trainer import PhaseTrainer

    phase = Phase(name="p", train="top(1)", epochs=2, learning_rate=0.01, cache="off", interpolate=0.25)
    run = make_run(phase)
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent(), None, run.arrays)
    list(trainer.train(iter(trainer.data.train), 0))
    ended, final = trainer.all_arrays(), trainer.final_arrays()
    for path, array in run.arrays.items():
        np.testing.assert_allclose(final[path], array + 0.25 * (ended[path] - array), rtol=1e-5, atol=1e-6)
    assert not np.allclose(ended["head/classifier/kernel"], run.arrays["head/classifier/kernel"])
