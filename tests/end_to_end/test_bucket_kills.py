"""Runs whose images and features lie in a bucket, killed while they index, extract and train."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from local_bucket import failing_s3
from s3_server import Server

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.distributed.processes import INDEX
from transfer_jax.storage import object_cache, remote

pytestmark = pytest.mark.extended
pytest.importorskip("s3fs")

# A network that compiles in a moment, and shards of features that are as small as can be.
NETWORKS = """
import flax.linen as nn
import jax
import jax.numpy as jnp

import transfer_jax as tj
from transfer_jax.features import shard_writer

shard_writer._SHARD_BYTES = 1


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in (6, 8, 10):
            x = nn.relu(nn.Conv(width, (3, 3), strides=2)(x))
        return nn.Dense(10)(x.mean((1, 2)))


def make():
    variables = Network().init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    small = tj.Preprocessing(image_size=16, mean=(127.5,) * 3, std=(127.5,) * 3)
    return tj.own_model(Network(), variables, head="Dense_0", preprocessing=small)
"""
SCHEDULE = Schedule(
    (
        Phase(name="head", train="head", epochs=4, learning_rate=0.1, cache="require"),
        Phase(name="top", train="top(1)", epochs=3, learning_rate=1e-2, augment=True),
    )
)
RESULTS = ("model/weights.safetensors", "model/model.json", "metrics.jsonl", "predictions.csv")
SMALL_CACHE = "0.00005"
"""Gigabytes of a cache that holds a fifth of the images, so that training reads from the bucket too."""


@pytest.fixture(scope="module")
def server(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of S3 with the images."""
    root = tmp_path_factory.mktemp("buckets")
    shutil.copytree(images, root / "bucket/colours")
    with pytest.MonkeyPatch.context() as patch, failing_s3(root, patch) as server:
        yield server


class Runs:
    """Starts the same training in several folders; `count` processes each."""

    def __init__(self, folder: Path, server: Server, write_config: Callable, count: int) -> None:
        self.folder, self.server, self.write_config, self.count = folder, server, write_config, count
        folder.mkdir(exist_ok=True)
        (folder / "networks.py").write_text(NETWORKS)

    def start(self, name: str, gigabytes: str = "1") -> subprocess.Popen:
        config = TrainConfig(
            images="s3://bucket/colours",
            model="networks:make",
            schedule=SCHEDULE,
            batch_size=8,
            feature_dir=f"s3://bucket/features-{self.count}-{name}",
        )
        file = self.write_config(self.folder / f"{name}.py", config)
        command = [sys.executable, "-m", "transfer_jax.cli"]
        if self.count > 1:
            command += ["launch", "--processes", str(self.count), "--devices", "2", "--pause", "0.1", "--"]
        command += ["train", str(file), "--workdir", str(self.folder / name), "--checkpoint-seconds", "0"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                object_cache.FOLDER: str(self.folder / f"objects-{name}"),
                object_cache.GIGABYTES: gigabytes,
                remote.CACHE: str(self.folder / f"mirrors-{name}"),
            },
        )

    def features(self, name: str) -> Path:
        return self.server.root / f"bucket/features-{self.count}-{name}"

    def phase(self, name: str) -> str:
        """The phase of the last logged step of a run."""
        file = self.folder / name / "metrics.jsonl"
        # The last line may be incomplete.
        lines = file.read_text().split("\n")[:-1] if file.is_file() else []
        rows = [json.loads(line) for line in lines]
        return next((row["phase"] for row in reversed(rows) if row["kind"] == "train"), "")

    def assert_same(self, one: str, other: str) -> None:
        for name in RESULTS:
            first, second = (self.folder / each / name for each in (one, other))
            assert first.read_bytes() == second.read_bytes(), name


class Kill:
    """Kills processes when the n-th request of a kind arrives, before it is answered.

    Args:
        method: The method of the requests.
        wanted: Whether a request of a name counts.
        count: The number of requests.
        kill: Kills them, and returns whether it did.
    """

    def __init__(
        self, method: str, wanted: Callable[[str], bool], count: int, kill: Callable[[], bool]
    ) -> None:
        self.method, self.wanted, self.left, self.kill = method, wanted, count, kill
        self.done = threading.Event()

    def __call__(self, method: str, name: str) -> None:
        if not self.done.is_set() and method == self.method and self.wanted(name):
            self.left -= 1
            if self.left <= 0 and self.kill():
                self.done.set()


def moments(runs: Runs, name: str) -> dict[str, tuple[str, Callable[[str], bool], int]]:
    """Method, kind of name and number of the request at which a run is killed."""

    def extracting(object: str) -> bool:
        return object.endswith(".png") and bool([*runs.features(name).glob("*/manifest.json")])

    return {
        "indexing": ("PUT", lambda object: "/parts/" in object or object.endswith("/labels.npy"), 2),
        "extracting": ("GET", extracting, 21),
        "storing": ("PUT", lambda object: "/features-" in object and "shard-" in object, 3),
        "training": ("GET", lambda object: object.endswith(".png") and runs.phase(name) == "top", 17),
    }


def test_a_killed_run_ends_as_an_undisturbed_one(
    server: Server, write_config: Callable, tmp_path: Path
) -> None:
    runs = Runs(tmp_path / "alone", server, write_config, 1)
    assert runs.start("whole").wait(600) == 0
    (index,) = (server.root / "bucket/colours/.transfer_jax_index").iterdir()
    for file in sorted(index.rglob("*"), reverse=True):  # The next run makes it again.
        file.unlink() if file.is_file() else file.rmdir()
    server.listings.clear()
    for moment, (method, wanted, count) in moments(runs, "killed").items():
        process = runs.start("killed", SMALL_CACHE)
        server.look = Kill(method, wanted, count, lambda process=process: process.kill() is None)
        assert process.wait(600) == -signal.SIGKILL, moment
    server.look = lambda method, name: None
    assert runs.start("killed", SMALL_CACHE).wait(600) == 0
    runs.assert_same("whole", "killed")
    assert not [*server.root.rglob("*.note.json"), *server.root.rglob("parts/*")]


def workers(launcher: subprocess.Popen) -> dict[int, psutil.Process]:
    """The processes of a launcher by their place."""
    found = {}
    for child in psutil.Process(launcher.pid).children():
        try:
            found[int(child.environ()[INDEX])] = child
        except (KeyError, psutil.Error):  # just started, or at its end
            continue
    return found


def killed(launcher: subprocess.Popen, place: int) -> bool:
    """Kills a process of a launcher; returns False if it is not found."""
    if (process := workers(launcher).get(place)) is None:
        return False
    process.kill()
    return True


def test_two_processes_read_each_object_once_and_either_may_be_killed(
    server: Server, write_config: Callable, tmp_path: Path
) -> None:
    runs = Runs(tmp_path / "together", server, write_config, 2)
    read: Counter[str] = Counter()
    server.look = lambda method, name: read.update([name] if method == "GET" else [])
    assert runs.start("whole").wait(600) == 0
    server.look = lambda method, name: None
    images = {name: count for name, count in read.items() if name.endswith(".png")}
    assert len(images) == 60
    assert {*images.values()} == {1}, images

    launcher = runs.start("killed", SMALL_CACHE)
    at = moments(runs, "killed")
    for moment, place in (("extracting", 1), ("training", 0)):
        kill = Kill(*at[moment], lambda place=place: killed(launcher, place))
        server.look = kill
        while not kill.done.wait(0.5):
            assert launcher.poll() is None, f"it ended before it was killed while {moment}"
    assert launcher.wait(600) == 0
    runs.assert_same("whole", "killed")
