"""Changes of the config of a run of three phases that has finished the first."""

import dataclasses
import json
from pathlib import Path

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.runs.config_changes import check_changes, check_steps, record_change
from transfer_jax.runs.run_progress import RunProgress

WORKDIR = Path("run")
PHASES = tuple(
    Phase(name=name, train="head", epochs=2, learning_rate=0.1) for name in ("one", "two", "three")
)
STARTED = TrainConfig(images="photos", schedule=Schedule(PHASES))
BETWEEN = RunProgress(phase=1, results=[{}])
INSIDE = RunProgress(phase=1, data={"next_index": 3}, results=[{}])
FINISHED = RunProgress(phase=3, results=[{}, {}, {}])


def with_phase(index: int, **changes) -> TrainConfig:
    phases = [*PHASES]
    phases[index] = dataclasses.replace(phases[index], **changes)
    return dataclasses.replace(STARTED, schedule=Schedule(tuple(phases)))


def with_phases(*phases: Phase) -> TrainConfig:
    return dataclasses.replace(STARTED, schedule=Schedule(phases))


def changed(**changes) -> TrainConfig:
    return dataclasses.replace(STARTED, **changes)


@pytest.mark.parametrize(
    ("position", "given"),
    [
        (BETWEEN, with_phase(1, train="top(2)", epochs=1, optimizer="sgd", augment=True)),
        (INSIDE, with_phase(1, epochs=7, learning_rate=0.01, shape="linear")),
        (INSIDE, with_phase(2, name="last", train="all_()")),
        (INSIDE, with_phases(*PHASES, dataclasses.replace(PHASES[0], name="four"))),
        (INSIDE, with_phases(*PHASES[:2])),
        (INSIDE, changed(label_smoothing=0.1, precision="bfloat16", dropout=0.3)),
        (INSIDE, changed(images="moved", weights="moved.safetensors")),  # `RunStart` compares their contents.
        (RunProgress(), changed(seed=1, model="resnet50", schedule=Schedule(PHASES[2:]))),
    ],
)
def test_what_only_affects_the_steps_to_come_may_change(position, given):
    check_changes(STARTED, given, position, WORKDIR, force=True)
    with pytest.raises(
        ValueError, match=r"started with another config: .* resume anyway with --force-config"
    ):
        check_changes(STARTED, given, position, WORKDIR, force=False)


@pytest.mark.parametrize(
    ("position", "given", "named"),
    [
        (BETWEEN, with_phase(0, epochs=3), r"schedule\.phases\.0\.epochs was 2, now 3"),
        (INSIDE, with_phase(0, learning_rate=0.2), r"schedule\.phases\.0\.learning_rate was 0\.1, now 0\.2"),
        (INSIDE, with_phase(1, train="top(2)"), r"schedule\.phases\.1\.train was 'head', now 'top\(2\)'"),
        (
            INSIDE,
            with_phase(1, interpolate=0.5, epochs=5),
            r"phases\.1\.interpolate was 1\.0, now 0\.5\. Use",
        ),
        (INSIDE, with_phases(*PHASES[1:]), r"schedule\.phases\.0\.name was 'one', now 'two'"),
        (
            BETWEEN,
            with_phases(PHASES[0]),
            "1 phases of the run in run are finished, and the schedule has only 1",
        ),
        (BETWEEN, changed(model="resnet50"), "model was 'efficientnet_lite0', now 'resnet50'"),
        (BETWEEN, changed(batch_size=8, label_smoothing=0.1), r"changed: batch_size was 32, now 8\. Use"),
        (BETWEEN, changed(seed=3, val_fraction=0.5), "seed was 0, now 3; val_fraction was 0.25, now 0.5"),
        (BETWEEN, changed(hidden=(3,)), "hidden"),
    ],
)
def test_what_is_trained_cannot_change(position, given, named):
    with pytest.raises(ValueError, match=named):
        check_changes(STARTED, given, position, WORKDIR, force=True)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        with_phase(2, epochs=5),
        with_phases(*PHASES, dataclasses.replace(PHASES[0], name="four")),
        changed(seed=1),
    ],
)
def test_a_finished_run_cannot_change(force, given):
    with pytest.raises(
        ValueError, match=r"the run in run is finished, and cannot be trained with another config: "
    ):
        check_changes(STARTED, given, FINISHED, WORKDIR, force=force)
    check_changes(STARTED, changed(threads=7), FINISHED, WORKDIR, force=force)


def test_a_phase_cannot_be_shorter_than_what_is_trained(make_run):
    run = make_run(*PHASES)  # Three steps an epoch.
    check_steps(run, None, RunProgress())
    check_steps(run, 6, BETWEEN)
    check_steps(run, 11, INSIDE)
    short = make_run(PHASES[0], dataclasses.replace(PHASES[1], epochs=1), PHASES[2])
    with pytest.raises(
        ValueError, match=r"phase 'two' has 3 steps with epochs=1, but .* already trained 5; use"
    ):
        check_steps(short, 11, INSIDE)


def test_earlier_configs_are_kept_with_the_step_until_which_they_were_used(tmp_path):
    second = with_phase(2, epochs=5)
    record_change(STARTED, STARTED, 4, tmp_path)
    record_change(STARTED, second, None, tmp_path)  # Nothing was trained.
    assert not [*tmp_path.iterdir()]
    record_change(STARTED, second, 4, tmp_path)
    record_change(second, STARTED, 9, tmp_path)
    first, then = json.loads((tmp_path / "earlier_configs.json").read_text())
    assert (first["until_step"], then["until_step"]) == (4, 9)
    assert first["changes"] == ["schedule.phases.2.epochs was 2, now 5"]
    assert TrainConfig.from_json(first["config"]) == STARTED
    assert TrainConfig.from_json(then["config"]) == second
