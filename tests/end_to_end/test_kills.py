"""A run that is killed again and again ends exactly like one that is not."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from transfer_jax import Phase, Schedule, TrainConfig, create_model, fit
from transfer_jax.freezing.freeze_check import array_hashes
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of

SCRIPT = Path(__file__).with_name("stopped_run.py")

# Cached views; live augmentation and moving statistics; and the head alone again, on what changed below it.
SCHEDULE = Schedule(
    (
        Phase(
            name="first", train="head", epochs=3, learning_rate=0.01, augment=True, views=4, cache="require"
        ),
        Phase(name="second", train="top(2)", epochs=2, learning_rate=1e-3, norm="train", augment=True),
        Phase(name="third", train="head", epochs=3, learning_rate=0.01, cache="require"),
    )
)


@pytest.fixture(scope="module")
def config(images: Path) -> TrainConfig:
    return TrainConfig(
        images=str(images),
        model="efficientnet_lite_tiny",
        weights="none",
        schedule=SCHEDULE,
        batch_size=8,
        dropout=0.3,
        ema_decay=0.9,
        eval_every=1,
    )


@pytest.fixture(scope="module")
def uninterrupted(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted")
    fit(config, workdir)
    return workdir


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def latest(workdir: Path) -> int:
    return max((int(path.stem) for path in (workdir / "checkpoints/records").glob("*.json")), default=0)


@pytest.mark.extended
def test_killed_in_every_phase(
    config: TrainConfig,
    uninterrupted: Path,
    start: Callable,
    write_config: Callable,
    tmp_path: Path,
) -> None:
    workdir = tmp_path / "killed"
    file = write_config(tmp_path / "config.py", config)
    command = ("train", file, "--workdir", workdir, "--checkpoint-seconds", 0)

    def stop(task: str, count: int, number: int, *options: object):
        return start(SCRIPT, task, count, number, *command, *options)

    # In the extraction: three shards of six are there, and no checkpoint.
    assert stop("extracting training features", 4, signal.SIGKILL).code == -signal.SIGKILL
    (cache,) = (workdir / "features").glob("[!.]*")
    shards = {path.name: path.stat().st_mtime_ns for path in cache.glob("shard-*.npy")}
    assert sorted(shards) == ["shard-00000.npy", "shard-00001.npy", "shard-00002.npy"]
    assert latest(workdir) == 0

    # In the first phase, before its first checkpoint: the extraction had gone on, and a line is in the log
    # whose steps are lost.
    rarely = ("--checkpoint-seconds", 1000)
    assert stop("training first", 8, signal.SIGKILL, *rarely).code == -signal.SIGKILL
    again = {path.name: path.stat().st_mtime_ns for path in cache.glob("shard-*.npy")}
    assert len(again) == 6
    assert shards.items() <= again.items()
    assert latest(workdir) == 0
    assert [line["step"] for line in lines(workdir) if line["kind"] == "train"] == [5]

    # In the second phase, behind its first checkpoint, which comes when three steps are begun and over.
    assert stop("training second", 4, signal.SIGKILL).code == -signal.SIGKILL
    assert latest(workdir) == 18

    # Ctrl-C in the third writes a checkpoint behind the next step.
    stopped = stop("training third", 7, signal.SIGINT)
    assert stopped.code == 130
    assert stopped.said == ["Stopped; nothing is lost. The same command resumes from here."]
    assert latest(workdir) == 33

    finished = start("-m", "transfer_jax.cli", *command)
    assert finished.code == 0, finished.err
    assert finished.said == []

    files = ("model/weights.safetensors", "model/model.json", "metrics.jsonl", "predictions.csv")
    for name in files:
        assert (workdir / name).read_bytes() == (uninterrupted / name).read_bytes(), name


@pytest.mark.extended
def test_killed_in_a_phase_that_keeps_its_best_epoch(
    config: TrainConfig, start: Callable, write_config: Callable, tmp_path: Path
) -> None:
    first, second, _ = SCHEDULE.phases
    schedule = Schedule((first, dataclasses.replace(second, epochs=4)))
    best = dataclasses.replace(config, schedule=schedule, keep_epoch="best", eval_every=0)
    expected = fit(best, tmp_path / "uninterrupted")
    file = write_config(tmp_path / "config.py", best)
    command = ("train", file, "--workdir", tmp_path / "killed", "--checkpoint-seconds", 0)
    for phase, count in (("first", 8), ("second", 12)):
        stopped = start(SCRIPT, f"training {phase}", count, signal.SIGKILL, *command)
        assert stopped.code == -signal.SIGKILL
        record = tmp_path / f"killed/checkpoints/records/{latest(tmp_path / 'killed')}.json"
        assert json.loads(record.read_text())["progress"]["best"]["has_arrays"]
    finished = start("-m", "transfer_jax.cli", *command)
    assert finished.code == 0, finished.err
    for name in ("model/weights.safetensors", "metrics.jsonl", "predictions.csv"):
        one, two = (tmp_path / side / name for side in ("uninterrupted", "killed"))
        assert one.read_bytes() == two.read_bytes(), name
    phases = json.loads((tmp_path / "killed/phases.json").read_text())["phases"]
    for one, two in zip(expected.phases, phases, strict=True):
        names = [field.name for field in dataclasses.fields(one) if "second" not in field.name]
        assert {name: getattr(one, name) for name in names} == {name: two[name] for name in names}
        assert one.kept_by == "log_loss"


def test_frozen_blocks_are_bit_identical(config: TrainConfig, uninterrupted: Path) -> None:
    model = create_model(config.model, 3, dropout=config.dropout, seed=config.seed)
    _, params, stats = split(model)
    initial = {**params, **stats}
    final = jax.device_put(load_file(uninterrupted / "model/weights.safetensors"))
    assert final.keys() == initial.keys()

    changed = {path for path in final if not np.array_equal(final[path], initial[path])}
    assert {block_of(path) for path in changed} == {"blocks.7", "top", "head"}
    for path in ("backbone/top/norm/mean", "backbone/top/norm/var", "backbone/top/conv/kernel"):
        assert path in changed
    never = {path for path in final if block_of(path) not in ("blocks.7", "top", "head")}
    assert len(never) > 100

    first, second, third = (line for line in lines(uninterrupted) if line["kind"] == "proof")
    assert [line["phase"] for line in (first, second, third)] == ["first", "second", "third"]
    backbone = {path for path in final if block_of(path) != "head"}
    assert first["frozen"] == array_hashes({path: initial[path] for path in backbone})
    assert second["frozen"] == array_hashes({path: initial[path] for path in never})
    assert third["frozen"] == array_hashes({path: final[path] for path in backbone})
