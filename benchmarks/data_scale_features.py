"""Caches of features at scale: manifest, writing, reading from a bucket, several processes, kills.

    python benchmarks/data_scale_features.py [manifest] [write] [read] [processes] [kills]

The bucket is one of an S3 server on this machine (moto), which answers each request 30 ms late.

- `manifest`: CPU seconds to write, read and check the manifest of 10,010 shards, and to pass over them.
- `write`: bytes that are written and read for features of float32 in each precision (`/proc/self/io`).
- `read`: rows a second in two epochs of training from the bucket, and from local files.
- `processes`: two processes extract, then read an epoch on machines with empty disks: objects of each.
- `kills`: two processes extract into the bucket; one or both are killed with SIGKILL again and again until
  the extraction ends. The features must be those of an undisturbed one.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LATENCY = 0.03
"""Seconds that each request to the bucket takes longer."""
WIDTH, BATCH = 768, 32
WHAT = ("manifest", "write", "read", "processes", "kills")


def key(stored: str | None = None, name: str = "d") -> Any:
    """Returns the key of features in a precision."""
    from transfer_jax.features import FeatureKey

    return FeatureKey(
        weights="w", boundary="pre_logits", preprocessing={}, dtype="float32", dataset=name, stored=stored
    )


def rows_of(first: int, last: int) -> np.ndarray:
    """Returns features that depend on the row alone, float32 `(last - first, WIDTH)`."""
    numbers = np.arange(first, last, dtype=np.float32)[:, None]
    return np.sin(numbers * np.arange(1, WIDTH + 1, dtype=np.float32) / 100)


def extract(root: str, rows: int, stored: str | None = None, seconds: float = 0.0) -> Any:
    """Extracts features into a folder of caches; each batch takes a while."""
    from transfer_jax.features import FeatureCacheDir, Layout, RowFormat, write_shards
    from transfer_jax.storage.remote import local_path

    def batches(ranges: Sequence[tuple[int, int]]) -> Iterator[Mapping[str, np.ndarray]]:
        for first, last in ranges:
            for at in range(first, last, BATCH):
                time.sleep(seconds)
                yield {"features": rows_of(at, min(at + BATCH, last))}

    layout = Layout(rows, BATCH, RowFormat.single((WIDTH,), stored or "float32"))
    return write_shards(key(stored), layout, batches, None, FeatureCacheDir(local_path(root)))


def manifest(shards: int = 10_010) -> dict[str, Any]:
    """Returns the CPU seconds of passes over a manifest."""
    from transfer_jax.features import Manifest, RowFormat

    sha = hashlib.sha256(b"").hexdigest()
    names = [f"shard-{index:05d}.npy" for index in range(shards)]
    whole = Manifest(
        key=key("int8").to_json(),
        rows=shards * 8_704,
        shard_rows=8_704,
        row_format=RowFormat.single((WIDTH,), "int8"),
        files=dict.fromkeys(names, sha),
        errors=dict.fromkeys(names, (0.5, 2.0)),
        labels=False,
    )
    found: dict[str, Any] = {"shards": shards}

    def timed(name: str, function: Any) -> None:
        start = time.process_time()
        function()
        found[f"{name}, CPU s"] = round(time.process_time() - start, 3)

    with tempfile.TemporaryDirectory() as folder:
        timed("write", lambda: whole.write(Path(folder)))
        timed("read", lambda: Manifest.read(Path(folder)))
    timed("complete", whole.complete)
    timed("rows of each shard", lambda: [whole.rows_of(index) for index in range(whole.shard_count)])
    return found


def write(rows: int = 100_000) -> list[dict[str, Any]]:
    """Returns the bytes that an extraction writes and reads, by precision."""
    found = []
    for stored in (None, "float16", "int8"):
        with tempfile.TemporaryDirectory() as folder:
            before, start = _io(), time.process_time()
            cache = extract(folder, rows, stored).cache
            after = _io()
            found.append(
                {
                    "stored": stored or "float32",
                    "MB of features": round(cache.manifest.bytes / 1e6, 1),
                    "MB written": round((after["wchar"] - before["wchar"]) / 1e6, 1),
                    "MB read": round((after["rchar"] - before["rchar"]) / 1e6, 1),
                    "CPU s": round(time.process_time() - start, 2),
                    "error": f"{cache.error:.2%}",
                }
            )
    return found


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def read(rows: int = 120_000, batch: int = 1024) -> list[dict[str, Any]]:
    """Returns the rows a second in two epochs, from local files and from the bucket of an empty machine."""
    from transfer_jax.data import shuffled_batches
    from transfer_jax.features import FeatureCache
    from transfer_jax.features.shard_order import ShardOrder
    from transfer_jax.storage import object_cache

    found = []
    with tempfile.TemporaryDirectory() as folder, server() as environment:
        os.environ.update(environment)
        places = {"local": f"{folder}/local", "bucket": "s3://bucket/read"}
        for place, root in places.items():
            os.environ[object_cache.FOLDER] = f"{folder}/first"
            directory = extract(root, rows).cache.directory.name
            os.environ[object_cache.FOLDER] = f"{folder}/second"
            cache = FeatureCache(f"{root}/{directory}", check=False)
            order = ShardOrder(
                rows,
                batch,
                0,
                shard=cache.manifest.shard_rows,
                prefetch=lambda ranges, cache=cache: cache.prefetch(
                    sorted({first // cache.manifest.shard_rows for first, _ in ranges})
                ),
            )
            fetch = lambda indices, places, rng, cache=cache: cache.columns(indices)  # noqa: E731
            batches = iter(shuffled_batches(fetch, rows, batch_size=batch, seed=0, order=order))
            for epoch in (1, 2, 3):
                start, cpu = time.perf_counter(), time.process_time()
                for _ in range(rows // batch):
                    next(batches)
                seconds = time.perf_counter() - start
                found.append(
                    {
                        "features": place,
                        "epoch": epoch,
                        "rows/s": round(rows / seconds),
                        "MB/s": round(cache.manifest.bytes / 1e6 / seconds),
                        "CPU s": round(time.process_time() - cpu, 2),
                    }
                )
    return found


def worker(root: str, rows: int, seconds: float) -> None:
    """Extracts as one of two processes, then reads its part of an epoch, and prints what it did."""
    from transfer_jax.distributed import processes
    from transfer_jax.features import FeatureCache, cache_files
    from transfer_jax.features.shard_order import ShardOrder
    from transfer_jax.storage import object_cache
    from transfer_jax.storage.remote import display_path

    processes.join()
    done: dict[str, list[str]] = {"written": [], "read": []}
    load, store = cache_files.BucketFiles.download, cache_files.BucketFiles.writing

    def download(self: Any, name: str, to: Path) -> None:
        load(self, name, to)
        done["read"].append(name)

    def writing(self: Any, name: str) -> Any:
        done["written"] += [name] if name.endswith(".npy") else []
        return store(self, name)

    cache_files.BucketFiles.download, cache_files.BucketFiles.writing = download, writing  # type: ignore[method-assign]
    cache = extract(root, rows, seconds=seconds).cache
    os.environ[object_cache.FOLDER] += "-empty"
    cache = FeatureCache(display_path(cache.directory), check=False)
    places = np.array_split(np.arange(256), processes.count())[processes.index()]
    order = ShardOrder(rows, 256, 0, shard=cache.manifest.shard_rows, places=places)
    content = hashlib.sha256()
    for step in range(rows // 256):
        chosen = order[step][places]
        features = cache.columns(chosen)["features"]
        np.testing.assert_array_equal(features, np.concatenate([rows_of(row, row + 1) for row in chosen]))
        content.update(features.tobytes())
    hashes = dict(sorted(cache.manifest.files.items()))
    print(
        json.dumps({**done, "shards": len(hashes), "features": _digest(hashes), "epoch": content.hexdigest()})
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def start(folder: Path, root: str, rows: int, seconds: float, environment: dict[str, str]) -> list[Any]:
    """Starts two processes, as on two machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, __file__, "worker", root, str(rows), str(seconds)]
    found = []
    for index in range(2):
        own = {
            "TRANSFER_JAX_MIRRORS": f"{folder}/{index}/mirrors",
            "TRANSFER_JAX_OBJECTS": f"{folder}/{index}/objects",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
            "TRANSFER_JAX_HEARTBEAT": "10",
            "JAX_PLATFORMS": "cpu",
        }
        found.append(
            subprocess.Popen(
                program,
                env={**os.environ, **environment, **own},
                stdout=subprocess.PIPE,
                stderr=(folder / f"{index}.log").open("ab"),
                text=True,
            )
        )
    return found


def ended(running: list[Any]) -> list[dict[str, Any]]:
    """Returns what the processes printed."""
    lines = [process.communicate()[0].splitlines() for process in running]
    codes = [process.returncode for process in running]
    if any(codes):
        raise RuntimeError(f"the processes ended with {codes}")
    return [json.loads(each[-1]) for each in lines]


def two_processes(rows: int = 131_072) -> list[dict[str, Any]]:
    """Returns the objects that each of two processes wrote and read."""
    with tempfile.TemporaryDirectory() as folder, server() as environment:
        found = ended(start(Path(folder), "s3://bucket/two", rows, 0.0, environment))
    return [
        {
            "process": index,
            "shards": each["shards"],
            "written": len(each["written"]),
            "read in an epoch": len(each["read"]),
            "read again": len(each["read"]) - len({*each["read"]}),
            "of the other": len({*each["read"]} & {*found[1 - index]["read"]}),
        }
        for index, each in enumerate(found)
    ]


def kills(count: int = 4, rows: int = 131_072, seconds: float = 0.01) -> dict[str, Any]:
    """Returns whether an extraction that is killed again and again gives the features of another one."""
    import s3fs

    rng, victims, at = random.Random(0), [], []
    with tempfile.TemporaryDirectory() as folder, server() as environment:
        os.environ.update(environment)
        bucket = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
        whole = ended(start(Path(folder), "s3://bucket/whole", rows, 0.0, environment))
        while True:
            running = start(Path(folder), "s3://bucket/killed", rows, seconds, environment)
            if len(victims) == count:
                break
            before = _shards(bucket)
            while _shards(bucket) <= before and all(process.poll() is None for process in running):
                time.sleep(0.2)
            time.sleep(rng.uniform(0, 3))
            at.append(_shards(bucket))
            victims.append(chosen := ("first", "second", "both")[len(victims) % 3])
            first, second = running
            for process in {"first": [first], "second": [second], "both": running}[chosen]:
                process.send_signal(signal.SIGKILL)
            time.sleep(rng.uniform(0, 2))  # The other one continues until it notices, or is ended.
            for process in running:
                process.terminate()
                process.communicate()
        found = ended(running)
    return {
        "killed": victims,
        "shards then": at,
        "shards": found[0]["shards"],
        "written after the last kill": [len(each["written"]) for each in found],
        "same features": [each["features"] for each in found] == [each["features"] for each in whole],
        "same epoch": [each["epoch"] for each in found] == [each["epoch"] for each in whole],
    }


def _shards(bucket: Any) -> int:
    """Returns the number of shards that are uploaded."""
    with contextlib.suppress(FileNotFoundError):
        return sum(name.endswith(".npy") for name in bucket.find("bucket/killed"))
    return 0


@contextlib.contextmanager
def server() -> Iterator[dict[str, str]]:
    """Starts a server of S3 in a process of its own, and yields the variables of its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, __file__, "server", str(port)])
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
                break
            time.sleep(0.2)
        subprocess.run(
            [sys.executable, "-c", "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"],
            env={**os.environ, **environment},
            check=True,
        )
        yield environment
    finally:
        process.kill()
        process.wait()


def serve(port: int) -> None:
    """Answers requests to S3, each of them late."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)

    def late(environment: Any, respond: Any) -> Any:
        time.sleep(LATENCY)
        return app(environment, respond)

    run_simple("127.0.0.1", port, late, threaded=True)


MEASUREMENTS = {
    "manifest": manifest,
    "write": write,
    "read": read,
    "processes": two_processes,
    "kills": kills,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this measurement."""
    parser.add_argument("what", nargs="*", choices=[*WHAT, []], help="the measurements; all without one")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the chosen measurements by name."""
    return {name: MEASUREMENTS[name]() for name in arguments.what or WHAT}


def main() -> None:
    """Prints each measurement as a line of JSON."""
    if sys.argv[1:2] == ["worker"]:
        return worker(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    if sys.argv[1:2] == ["server"]:
        return serve(int(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    for name in parser.parse_args().what or WHAT:
        found = MEASUREMENTS[name]()
        for row in found if isinstance(found, list) else [found]:
            print(json.dumps({"measurement": name, **row}), flush=True)
    return None


if __name__ == "__main__":
    main()
