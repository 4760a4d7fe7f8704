"""Object storage, by a folder that is used like a bucket.

The extended tests use servers of S3 and of Google Cloud Storage on this machine.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from local_bucket import Bucket, folder, gs, new_machine, s3, server_fixture
from safetensors.numpy import load_file

from transfer_jax import (
    FeatureCache,
    Phase,
    Schedule,
    TrainConfig,
    cache_features,
    fit,
    split_frozen,
)
from transfer_jax.runs.predict import classify
from transfer_jax.storage import remote
from transfer_jax.storage.file_lock import InUseError
from transfer_jax.storage.remote import display_path, is_remote, local_path, pull, push, remove
from transfer_jax.storage.workdir_lock import workdir_lock
from transfer_jax.training import LoopCheckpoints, next_phase

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
server = server_fixture(folder, s3, gs)


@pytest.fixture
def bucket(server: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The bucket, and copies of no other test's."""
    new_machine(monkeypatch, tmp_path)
    return server


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Continues as if on another machine with the same cache of objects."""
    monkeypatch.setenv(remote.CACHE, str(folder))
    monkeypatch.setattr(remote, "_mirrors", {})


@pytest.mark.parametrize(
    ("place", "remote"),
    [("s3://b/x", True), ("gs:/b/x", True), (Path("s3://b/x"), True), ("/b/x", False), ("C:/x", False)],
)
def test_remote_addresses(place, remote):
    assert is_remote(place) == remote


def test_a_folder_goes_there_and_back(bucket, tmp_path, monkeypatch):
    here = local_path(bucket.address("trip/"))
    (here / "a").mkdir()
    (here / "a/one.txt").write_text("one")
    (here / "two.txt").write_text("two")
    (here / ".hidden").write_text("no")
    push(here, skip=("left",))
    assert bucket.objects("trip/") == {"trip/a/one.txt": b"one", "trip/two.txt": b"two"}
    assert display_path(here / "a") == bucket.address("trip/a")

    elsewhere(monkeypatch, tmp_path / "other")
    there = local_path(Path(bucket.address("trip")))
    pull(there)
    assert (there / "a/one.txt").read_text() == "one"
    (there / "two.txt").write_text("changed")
    (there / "a/one.txt").unlink()
    push(there)
    assert bucket.objects("trip/") == {"trip/two.txt": b"changed"}

    elsewhere(monkeypatch, tmp_path / "mirrors")
    here = local_path(bucket.address("trip"))
    (here / "mine.txt").write_text("not there yet")
    pull(here)
    assert {path.name for path in here.rglob("*.txt")} == {"two.txt", "mine.txt"}
    assert (here / "two.txt").read_text() == "changed"
    remove(here / "a")
    push(here)
    assert bucket.objects("trip/").keys() == {"trip/two.txt", "trip/mine.txt"}


def test_only_what_changed_goes(bucket, monkeypatch):
    here = local_path(bucket.address("still"))
    (here / "one.txt").write_text("one")
    push(here)
    system = remote._mirrors[here].system
    monkeypatch.setattr(type(system), "put_file", lambda *args: pytest.fail("put again"))
    push(here)
    monkeypatch.setattr(type(system), "get_file", lambda *args: pytest.fail("got again"))
    pull(here)


def test_files_that_declare_others_complete_are_uploaded_last(bucket, monkeypatch):
    here, order = local_path(bucket.address("order")), []
    system = remote._mirrors[here].system
    put, rm = system.put_file, system.rm_file
    monkeypatch.setattr(system, "put_file", lambda file, to: (order.append(to), put(file, to)), raising=False)
    monkeypatch.setattr(system, "rm_file", lambda name: (order.append(f"no {name}"), rm(name)), raising=False)
    for name in ("manifest.json", "shard.npy", "records/3.json", "steps/3/x"):
        (here / name).parent.mkdir(exist_ok=True, parents=True)
        (here / name).write_text(name)
    push(here)
    remove(here)
    names = ["shard.npy", "steps/3/x", "manifest.json", "records/3.json"]
    assert order == [f"bucket/order/{name}" for name in names] + [
        f"no bucket/order/{name}" for name in reversed(names)
    ]


def test_the_newest_training_takes_over_and_the_earlier_one_changes_nothing_more(
    bucket, tmp_path, monkeypatch, caplog
):
    first = local_path(bucket.address("two"))
    taken = r"another training has taken over .*two: process"
    with pytest.raises(InUseError, match=taken), workdir_lock(first):  # noqa: PT012
        assert list(bucket.objects("two/")) == ["two/in_use.json"]
        (first / "metrics.jsonl").write_text("first")
        push(first)
        mirrors = dict(remote._mirrors)
        elsewhere(monkeypatch, tmp_path / "other")
        monkeypatch.setattr("socket.gethostname", lambda: "other")
        second = local_path(bucket.address("two"))
        pull(second)
        with caplog.at_level(logging.WARNING, "transfer_jax"), workdir_lock(second):
            (second / "metrics.jsonl").write_text("second")
            push(second)
            remote._mirrors.update(mirrors)
            (first / "metrics.jsonl").write_text("first again")
            push(first)
    assert "was in use by process" in caplog.text
    assert bucket.objects("two/") == {"two/metrics.jsonl": b"second"}


def test_a_reader_on_the_machine_of_a_training_leaves_its_copy_alone(bucket, monkeypatch):
    here = local_path(bucket.address("read"))
    (here / "metrics.jsonl").write_text("one line")
    push(here)
    (here / "metrics.jsonl").write_text("two lines")
    monkeypatch.setattr(remote, "is_locked", lambda path: path == here / ".lock")
    pull(here)
    assert (here / "metrics.jsonl").read_text() == "two lines"
    monkeypatch.undo()


def test_local_paths_stand_for_themselves(tmp_path):
    (tmp_path / "x").mkdir()
    assert local_path(tmp_path) == tmp_path
    pull(tmp_path)
    push(tmp_path)
    remove(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    assert display_path(tmp_path) == str(tmp_path)


def test_a_loop_resumes_on_another_machine(bucket, tmp_path, monkeypatch):
    params, address = {"body": np.ones(3, np.float32), "head": np.ones(2, np.float32)}, bucket.address("loop")
    start = next_phase(None, params, {"body": "frozen", "head": "head"}, optax.adam(0.1))
    moved = jax.tree.map(lambda leaf: leaf + 1, start[0])
    LoopCheckpoints(address, params).save(moved, start[1], 0, b"three")
    elsewhere(monkeypatch, tmp_path / "other")
    again = LoopCheckpoints(address, params)
    assert (again.steps, again.data) == (1, b"three")
    np.testing.assert_array_equal(again.restore(*start)[0].trainable["head"], 2.0)


def test_cached_features_are_read_on_another_machine(bucket, tmp_path, monkeypatch):
    params = {"body": np.eye(4, 2, dtype=np.float32), "head": np.ones((2, 1), np.float32)}
    function = lambda params, state, batch, key: batch["x"] @ params["body"] @ params["head"]  # noqa: E731
    data = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "label": np.arange(3)}
    split = split_frozen(function, params, {"body": "frozen", "head": "head"}, {"x": data["x"]})
    frozen = {"body": params["body"]}
    first = cache_features(split, frozen, data, bucket.address("caches"))
    elsewhere(monkeypatch, tmp_path / "other")
    again = cache_features(split, frozen, data, bucket.address("caches"))
    assert again.directory != first.directory
    assert again.directory.name == first.directory.name
    for name, array in again.gather([0, 1, 2]).items():
        np.testing.assert_array_equal(array, first.gather([0, 1, 2])[name])
    read = FeatureCache(bucket.address(f"caches/{first.directory.name}"))
    assert read[2]["label"] == 2


@pytest.fixture
def config(image_folder: Path, bucket: Bucket) -> TrainConfig:
    """Images, features and workdir in a bucket."""
    for file in image_folder.rglob("*.png"):
        bucket.system.put_file(str(file), f"bucket/images/{file.relative_to(image_folder).as_posix()}")
    phases = (
        Phase(name="head", train="head", epochs=3, learning_rate=0.01, cache="require"),
        Phase(name="top", train="top(1)", epochs=3, learning_rate=0.001, augment=True),
    )
    return TrainConfig(
        images=bucket.address("images"),
        model="efficientnet_lite_tiny",
        weights="none",
        image_size=32,
        batch_size=8,
        schedule=Schedule(phases),
        feature_dir=bucket.address("features"),
    )


def test_a_run_resumes_on_another_machine(config, bucket, image_folder, tmp_path, monkeypatch):
    local = fit(config, tmp_path / "local")
    stopped = [0]

    class Stops:
        """Ctrl-C in the second phase."""

        def start(self, task: str, total: int, *, done: int = 0) -> None:
            stopped[0] += task == "training top"

        def advance(self, images: int, **values: float) -> None:
            if stopped[0] == 1 and values:
                stopped[0] = 2
                raise KeyboardInterrupt

        def finish(self) -> None: ...
        def log(self, message: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        fit(config, bucket.address("run"), progress=Stops())
    assert "run/checkpoints/records/12.json" in bucket.objects("run/")

    elsewhere(monkeypatch, tmp_path / "other")
    result = fit(config, bucket.address("run"))
    assert result.phases[0].extracted == 0
    found = bucket.objects("run/")
    for name in (
        "metrics.jsonl",
        "predictions.csv",
        "config.json",
        "goodput.json",
        "certificates/02-top.json",
    ):
        assert f"run/{name}" in found
    assert not [name for name in found if "features" in name]
    assert found["run/metrics.jsonl"] == (local.workdir / "metrics.jsonl").read_bytes()
    features = bucket.objects("features/")
    assert sum(name.endswith("manifest.json") for name in features) == 2
    assert not [name for name in features if "note" in name]

    elsewhere(monkeypatch, tmp_path / "third")
    image = next(image_folder.rglob("*.png"))
    assert classify(bucket.address("run"), [image])[0][0] == str(image)


@pytest.mark.extended
@pytest.mark.parametrize("server", [s3], indirect=True)
def test_two_processes_share_a_bucket(config, bucket, tmp_path, monkeypatch):
    """Each has copies of its own, as on two machines; the run ends as in one process."""
    local = fit(config, tmp_path / "local")
    file = tmp_path / "config.py"
    file.write_text(
        f"from transfer_jax import Augmentation, Phase, Schedule, TrainConfig\n\nconfig = {config!r}\n"
    )
    command = (
        *(sys.executable, "-m", "transfer_jax.cli", "launch", "--processes", "2", "--devices", "2"),
        *("--", "train", str(file), "--workdir", bucket.address("both")),
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert bucket.address("both") in done.stdout
    elsewhere(monkeypatch, tmp_path / "other")
    workdir = local_path(bucket.address("both"))
    pull(workdir)
    expected, found = (load_file(each / "model/weights.safetensors") for each in (local.workdir, workdir))
    for path, array in expected.items():
        assert abs(found[path] - array).max() < 1e-4, path
