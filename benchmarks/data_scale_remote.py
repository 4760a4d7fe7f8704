"""Images in object storage: listing, the first batch, steady reading, two processes.

    python benchmarks/data_scale_remote.py --folder /tmp/remote --objects 100000

It makes a folder of class folders with photographs (crops of those of scikit-image), packs 10,000, and
reads both from an S3 server on this machine, which answers each request 30 ms late. Each measurement is a new
process with an empty cache. Times with other programs on the machine are not valid; CPU seconds, requests and
bytes are.
"""

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BATCH, FIRST = 256, 128
PORT = 9321


def make(folder: Path, objects: int, classes: int = 100) -> None:
    """Makes the images: 500 different files of about 20 kB, and links to them."""
    import numpy as np
    import skimage.data
    from PIL import Image

    originals = folder / "originals"
    if not originals.is_dir():
        originals.mkdir(parents=True)
        rng = np.random.default_rng(0)
        photos = [skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.coffee()]
        for i in range(500):
            photo = photos[i % 3]
            top, left = (int(rng.integers(0, each - 250)) for each in photo.shape[:2])
            Image.fromarray(photo[top : top + 250, left : left + 250]).save(
                originals / f"{i}.jpg", quality=90
            )
    images = folder / "bucket/images"
    for i in range(objects):
        file = images / f"class{i % classes:03d}" / f"{i}.jpg"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            os.link(originals / f"{i % 500}.jpg", file)


@contextlib.contextmanager
def server(folder: Path, latency: float) -> Iterator[None]:
    """Runs the server of the folder."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(folder)]
    process = subprocess.Popen([*command, "--port", str(PORT), "--latency", str(latency)])
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                counts()
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def counts() -> dict[str, Any]:
    """Returns what the server has answered since the last call."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/-/counts") as answer:
        return json.load(answer)


def work(what: str, source: str, share: str, images: int) -> None:
    """Does one measurement in this process, and prints its figures as JSON."""
    began, cpu = time.monotonic(), time.process_time()
    import numpy as np

    from transfer_jax.data import image_fetch, load_dataset
    from transfer_jax.models.preprocessing import Preprocessing

    imported = time.monotonic()
    dataset = load_dataset(source)
    opened = time.monotonic()
    found: dict[str, Any] = {
        "images": len(dataset),
        "import_s": imported - began,
        "open_s": opened - imported,
    }
    rows = np.random.default_rng(0).permutation(len(dataset))
    if share:
        index, count = map(int, share.split("/"))
        rows = rows[index::count]
    rows = rows[: images or FIRST] if what != "epoch" else rows
    if what == "blocks":  # As the training images of a run with `order="blocks"`.
        from transfer_jax.data.order import make_order

        dataset, order = dataset.in_pieces(), make_order(len(dataset), BATCH, 0, "blocks")
        rows = np.concatenate([order[batch] for batch in range(images // BATCH)])
    if what in ("first", "steady", "blocks"):
        fetch = image_fetch(dataset, Preprocessing(image_size=224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(fetch, np.array_split(rows, -(-len(rows) // BATCH))))
    elif what == "epoch":
        for part in np.array_split(rows, -(-len(rows) // BATCH)):
            dataset.contents(part)
    found["read_s"] = time.monotonic() - opened
    found["images_per_s"] = len(rows) / found["read_s"]
    found["cpu_s"] = time.process_time() - cpu
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


def measured(folder: Path, name: str, *arguments: str, keep_cache: bool = False) -> subprocess.Popen[str]:
    """Starts a measurement in a new process with an empty cache."""
    cache = folder / f"cache-{name}"
    if not keep_cache:
        subprocess.run(["rm", "-rf", str(cache)], check=True)
    keys = {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}
    environment = {
        **os.environ,
        **{f"AWS_{key}": value for key, value in keys.items()},
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT}",
        "TRANSFER_JAX_OBJECTS": str(cache / "objects"),
        "TRANSFER_JAX_MIRRORS": str(cache / "mirrors"),
    }
    command = [sys.executable, __file__, "--work", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def report(folder: Path, name: str, *arguments: str, keep_cache: bool = False) -> None:
    """Does a measurement, and prints its figures and those of the server."""
    counts()
    out, _ = measured(folder, name, *arguments, keep_cache=keep_cache).communicate()
    seen = counts()
    print(f"{name}: {out.strip()} requests={seen['requests']} sent_mb={seen['sent'] / 1e6:.2f}", flush=True)


def main() -> None:
    """Makes the data and measures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/data_scale_remote"))
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=4096, help="images of the steady reading")
    parser.add_argument("--latency", type=float, default=0.03)
    parser.add_argument(
        "--work", nargs=4, metavar=("WHAT", "SOURCE", "SHARE", "IMAGES"), help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    if options.work:
        what, source, share, images = options.work
        work(what, source, share, int(images))
        return
    folder = options.folder
    make(folder, options.objects)
    subprocess.run(["rm", "-rf", str(folder / "bucket/images/.transfer_jax_index")], check=True)
    small = folder / "bucket/small"
    subprocess.run(["rm", "-rf", str(small / ".transfer_jax_index")], check=True)
    for file in sorted((folder / "bucket/images").glob("class*/*.jpg"))[:10_000]:
        target = small / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(file, target)
    packed = folder / "bucket/packed"
    subprocess.run(["rm", "-rf", str(packed / ".transfer_jax_index")], check=True)
    subprocess.run([sys.executable, "-m", "transfer_jax.cli", "pack", str(small), str(packed)], check=True)
    bytes_packed = sum(file.stat().st_size for file in packed.glob("*.array_record"))
    print(f"10,000 packed images: {bytes_packed / 1e6:.1f} MB")
    copy = folder / "packed"  # A local index is not that of the bucket.
    subprocess.run(["rm", "-rf", str(copy)], check=True)
    subprocess.run(["cp", "-rl", str(packed), str(copy)], check=True)
    images = str(options.images)
    with server(folder, options.latency):
        report(folder, "folder listed and first batch", "first", "s3://bucket/images", "", "0")
        report(folder, "folder first batch index there", "first", "s3://bucket/images", "", "0")
        report(folder, "records indexed and first batch", "first", "records:s3://bucket/packed", "", "0")
        report(folder, "records first batch index there", "first", "records:s3://bucket/packed", "", "0")
        report(folder, "steady local folder", "steady", str(small), "", images)
        report(folder, "steady local records", "steady", f"records:{copy}", "", images)
        report(folder, "steady local records, blocks", "blocks", f"records:{copy}", "", images)
        report(folder, "steady bucket folder", "steady", "s3://bucket/images", "", images)
        report(folder, "steady bucket records", "steady", "records:s3://bucket/packed", "", images)
        name = "steady bucket records"
        report(folder, name, "steady", "records:s3://bucket/packed", "", images, keep_cache=True)
        report(folder, "steady bucket records, blocks", "blocks", "records:s3://bucket/packed", "", images)
        report(folder, "small listed", "first", "s3://bucket/small", "", "0")
        source = "s3://bucket/small"
        both = [measured(folder, f"epoch {i}", "epoch", source, f"{i}/2", "0") for i in range(2)]
        for each in both:
            print("one of two processes, an epoch:", (each.communicate()[0] or "").strip())
        read = {name: count for name, count in counts()["gets"].items() if name.endswith(".jpg")}
        print(f"{len(read):,} images read, each at most {max(read.values())} times")


if __name__ == "__main__":
    main()
