"""Resuming runs of the toy network: a run of two phases is stopped in its second one."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.report.progress import Silent
from transfer_jax.runs import fit
from transfer_jax.runs.checkpointing import arrays_at, finished_phases
from transfer_jax.runs.images import images_digest, run_images
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.runs.workdir import read_config
from transfer_jax.storage import workdir_lock
from transfer_jax.storage.file_lock import InUseError

ONE = Phase(name="one", train="head", epochs=1, learning_rate=0.1)
TWO = dataclasses.replace(ONE, name="two")


class Stop(Silent):
    """Stops a run at the start of its second phase, or after a number of steps of it."""

    def __init__(self, steps: int = 0) -> None:
        self.left, self.second = steps, False

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.second = task == "training two"
        self._stop()

    def advance(self, images: int, **values: float) -> None:
        self.left -= self.second
        self._stop()

    def _stop(self) -> None:
        if self.second and self.left <= 0:
            raise InterruptedError


@pytest.fixture
def config(image_folder: Path, tmp_path: Path, toy: str) -> TrainConfig:
    folder = shutil.copytree(image_folder, tmp_path / "images")
    settings = {"batch_size": 12, "threads": 1, "checkpoint_seconds": 0.0}
    return TrainConfig(
        images=str(folder), model=toy, weights="none", schedule=Schedule((ONE, TWO)), **settings
    )


@pytest.fixture
def stopped(config: TrainConfig, tmp_path: Path) -> Path:
    with pytest.raises(InterruptedError):
        fit(config, tmp_path / "run", progress=Stop())
    return tmp_path / "run"


def with_phases(config: TrainConfig, *phases: Phase) -> TrainConfig:
    return dataclasses.replace(config, schedule=Schedule(phases))


def files(workdir: Path) -> dict[str, tuple[int, bytes]]:
    """Returns times and contents of all files."""
    found = [path for path in workdir.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_the_start_is_recorded_in_the_workdir_and_in_the_checkpoints(config, stopped):
    start = json.loads((stopped / "start.json").read_text())
    assert (start["weights"], start["sha256"], start["train"]["count"]) == ("none", "", 36)
    (record,) = (stopped / "checkpoints/records").glob("*.json")
    assert json.loads(record.read_text())["progress"]["start"] == start


def test_replaced_images_are_refused_and_nothing_is_written(config, stopped):
    folder = Path(config.images)
    shutil.copytree(folder, folder.with_name("original"))
    shutil.copyfile(folder / "blue/05.png", folder / "red/00.png")
    before = files(stopped)
    with pytest.raises(ValueError, match="images with the same names and other contents"):
        fit(dataclasses.replace(config, threads=2), stopped)
    assert files(stopped) == before
    moved = dataclasses.replace(config, images=str(folder.with_name("original")))
    assert len(fit(moved, stopped).phases) == 2


def test_arrays_inside_a_schedule_are_those_of_the_same_start(config, stopped, tmp_path):
    assert arrays_at(load_network(resolve(config), tmp_path), stopped, 1)
    other = resolve(dataclasses.replace(config, split_seed=1))
    run = dataclasses.replace(load_network(other, tmp_path), config=config)
    with pytest.raises(ValueError, match=f"other images than when {stopped} was started"):
        arrays_at(run, stopped, 1)


def test_other_initial_values_are_refused(config, stopped, monkeypatch):
    monkeypatch.setattr("transfer_jax.nn.initializers._DEVIATION", 0.5)
    with pytest.raises(ValueError, match="random initial values of the network differ"):
        fit(config, stopped)


def test_a_longer_last_phase_is_trained_and_the_earlier_config_kept(config, stopped, logged):
    longer = with_phases(config, ONE, dataclasses.replace(TWO, epochs=3))
    result = fit(longer, stopped, force=True)
    assert [line["epoch"] for line in logged(stopped, "train") if line["phase"] == "two"] == [1, 2, 3]
    assert len(result.phases) == 2
    assert json.loads((stopped / "config.json").read_text()) == longer.to_json()
    (earlier,) = json.loads((stopped / "earlier_configs.json").read_text())
    assert (earlier["until_step"], earlier["config"]) == (3, config.to_json())


def test_more_phases_are_trained(config, stopped):
    three = with_phases(config, ONE, TWO, dataclasses.replace(TWO, name="three", train="top(1)"))
    assert [phase.name for phase in fit(three, stopped, force=True).phases] == ["one", "two", "three"]


def test_a_phase_in_progress_may_get_longer_but_not_too_short(config, tmp_path, logged):
    workdir, four = tmp_path / "run", with_phases(config, ONE, dataclasses.replace(TWO, epochs=4))
    with pytest.raises(InterruptedError):
        fit(four, workdir, progress=Stop(8))
    step = max(int(path.stem) for path in (workdir / "checkpoints/records").glob("*.json"))
    assert 3 + 3 < step < 3 + 12
    before = files(workdir)
    with pytest.raises(
        ValueError, match=rf"phase 'two' has 3 steps with epochs=1, but .* trained {step - 3};"
    ):
        fit(config, workdir, force=True)
    assert files(workdir) == before
    fit(with_phases(config, ONE, dataclasses.replace(TWO, epochs=5)), workdir, force=True)
    assert [line["epoch"] for line in logged(workdir, "train") if line["phase"] == "two"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("force", [False, True])
def test_a_finished_run_is_only_read(config, tmp_path, force):
    workdir = tmp_path / "run"
    first = fit(config, workdir)
    before = files(workdir)
    assert (
        fit(dataclasses.replace(config, threads=2, score_training=True), workdir, force=force).phases
        == first.phases
    )
    for other in (
        with_phases(config, ONE, dataclasses.replace(TWO, epochs=5)),
        with_phases(config, ONE, TWO, dataclasses.replace(TWO, name="three")),
        with_phases(config, ONE),
        dataclasses.replace(config, seed=1),
    ):
        with pytest.raises(ValueError, match=r"run is finished, .* Use another workdir\.$"):
            fit(other, workdir, force=force)
    assert files(workdir) == before


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_finished_run_and_its_images_may_move(config, tmp_path, checkpoints):
    first = fit(config, tmp_path / "run")
    folder = Path(shutil.move(tmp_path / "images", tmp_path / "moved"))
    workdir = Path(shutil.move(tmp_path / "run", tmp_path / "moved_run"))
    with pytest.raises(ValueError, match=r"if the images were moved, run `transfer-jax train --images PLACE"):
        run_images(read_config(workdir), Silent(), workdir=workdir)
    if not checkpoints:
        shutil.rmtree(workdir / "checkpoints")
    moved = dataclasses.replace(config, images=str(folder), threads=2)
    assert fit(moved, workdir).phases == first.phases
    assert read_config(workdir) == dataclasses.replace(config, images=str(folder))
    image = next(folder.rglob("*.png"))
    image.rename(image.with_name("other.png"))
    with pytest.raises(ValueError, match="has other images than when"):
        fit(dataclasses.replace(config, images=str(shutil.move(folder, tmp_path / "again"))), workdir)
    assert read_config(workdir).images == str(folder)


def test_an_unfinished_run_and_its_images_may_move(config, stopped, tmp_path):
    folder = Path(shutil.move(tmp_path / "images", tmp_path / "moved"))
    moved = dataclasses.replace(config, images=str(folder))
    assert len(fit(moved, stopped).phases) == 2
    assert read_config(stopped).images == str(folder)


def test_a_finished_run_is_finished_without_its_checkpoints_too(config, tmp_path):
    workdir = tmp_path / "run"
    first = fit(config, workdir)
    shutil.rmtree(workdir / "checkpoints")
    before = files(workdir)
    assert fit(config, workdir).phases == first.phases
    assert files(workdir) == before
    shutil.rmtree(workdir / "model")
    assert fit(config, workdir).phases != first.phases  # It was trained again: its times differ.


def without_start(workdir: Path, images: str) -> None:
    """Changes a workdir to one of a version that recorded only the names of the images."""
    (workdir / "start.json").unlink()
    for path in (workdir / "checkpoints/records").glob("*.json"):
        record = json.loads(path.read_text())
        del record["progress"]["start"]
        record["progress"]["images"] = images
        text = json.dumps(record["progress"], sort_keys=True)
        record["sha256"]["progress"] = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(record))


def test_checkpoints_of_earlier_versions_resume(config, stopped):
    resolved = resolve(config)
    without_start(stopped, images_digest(resolved.train, resolved.evaluation))
    assert len(fit(config, stopped).phases) == 2
    assert (stopped / "start.json").is_file()


def test_checkpoints_of_earlier_versions_refuse_images_of_other_names(config, stopped):
    without_start(stopped, "0" * 64)
    with pytest.raises(ValueError, match="has other images than when"):
        fit(config, stopped)


def test_a_second_training_is_refused_and_changes_nothing(config, stopped, monkeypatch):
    monkeypatch.setattr(workdir_lock, "_PATIENCE", 0.0)
    with workdir_lock.workdir_lock(stopped):
        before = files(stopped)
        with pytest.raises(InUseError, match=f"{stopped} is in use by another training: process"):
            fit(config, stopped)
        assert [phase.name for phase in finished_phases(stopped)] == ["one"]
        assert files(stopped) == before
    assert len(fit(config, stopped).phases) == 2


def test_a_training_that_ended_meanwhile_is_not_overwritten(config, stopped, monkeypatch):
    """The second training waits for the lock, and the first one saves and ends."""
    real = workdir_lock.workdir_lock

    def late(workdir: Path):
        monkeypatch.undo()
        fit(config, stopped)
        return real(workdir)

    monkeypatch.setitem(fit.__globals__, "workdir_lock", late)  # The package has a function of the same name.
    with pytest.raises(InUseError, match="run the same command again"):
        fit(config, stopped)
    assert len(fit(config, stopped).phases) == 2


def test_a_run_means_the_same_from_any_folder(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = dataclasses.replace(config, images="images", feature_dir="features")
    with pytest.raises(InterruptedError):
        fit(relative, "run", progress=Stop())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = fit(read_config(Path("../run")), "../run")
    assert len(result.phases) == 2
    assert list(Path().iterdir()) == []
