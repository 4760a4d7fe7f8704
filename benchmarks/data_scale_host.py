"""The CPU time that reading images takes, and the cores that a host of a pod needs for it.

    python benchmarks/data_scale.py host --needed 'ViT-B/16, all'=3200 'ViT-B/16, head'=10000

Crops of photographs (scikit-image) become JPEG files of 500 x 375 pixels, the mean size of ImageNet. They
are read as for training: decoded, cropped at random to 224 pixels, flipped. The table has the images per
second and the CPU time of an image with threads and with processes, as medians of rounds that measure them in
turn. Its last row has two programs with a thread each, which share nothing: what two cores can give. If
py-spy is installed, it samples how often one reading thread holds Python's global lock: threads alone use as
many cores as the inverse of that.

A host needs as many cores as images per second times the CPU seconds of an image. `--needed` names steps and
the images per second that they take on all chips of a host.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from contest import print_rows
from PIL import Image

_BATCH, _IMAGES = 64, 512
_SIZE = (500, 375)


def write_images(folder: Path) -> None:
    """Writes the JPEG files, a folder for each photograph."""
    from skimage import data

    rng = np.random.default_rng(0)
    photographs = {
        name: Image.fromarray(getattr(data, name)()) for name in ("chelsea", "coffee", "astronaut")
    }
    for number in range(_IMAGES):
        name = [*photographs][number % len(photographs)]
        image = photographs[name]
        width = int(rng.uniform(0.6, 1.0) * min(image.width, image.height * 4 / 3))
        height = width * 3 // 4
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        part = image.resize(_SIZE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
        path = folder / name / f"{number:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        part.save(path, quality=90)


def read(folder: Path, seconds: float, threads: int, workers: int) -> tuple[float, float | None]:
    """Reads training batches, and returns images per second and CPU seconds of an image.

    The CPU time of processes is not measured.
    """
    from transfer_jax import Augmentation
    from transfer_jax.data import augmented_image_fetch, from_folder, shuffled_batches
    from transfer_jax.models.registry import variant_of

    dataset = from_folder(folder)
    fetch = augmented_image_fetch(
        dataset, variant_of("resnet50").preprocessing, Augmentation(crop_scale=(0.08, 1.0))
    )
    batches = iter(
        shuffled_batches(fetch, len(dataset), batch_size=_BATCH, seed=0, threads=threads, workers=workers)
    )
    for _ in range(4 * max(workers, 1)):  # Processes have started, and batches are prefetched.
        next(batches)
    cpu, start, count = _cpu_seconds(), time.monotonic(), 0
    while time.monotonic() - start < seconds:
        next(batches)
        count += _BATCH
    wall = time.monotonic() - start
    if workers:
        batches.close()
    return count / wall, None if workers else (_cpu_seconds() - cpu) / count


def read_in_programs(folder: Path, seconds: float, count: int) -> float:
    """Returns the images per second of several programs at once, each with one thread."""
    command = [*_reading_program(folder), "--seconds", str(seconds)]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(float(program.communicate()[0]) for program in programs)


def _reading_program(folder: Path) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("data_scale.py")), "host", "--read", str(folder)]


def lock_share(folder: Path) -> float | None:
    """Returns the fraction of the time that a reading thread holds the global lock; None without py-spy."""
    if (spy := shutil.which("py-spy")) is None:
        return None
    program = _reading_program(folder)
    samples = []
    for option in ([], ["--gil"]):
        out = folder.with_suffix(".txt")
        command = [spy, "record", "--rate", "200", "--format", "raw", "--output", str(out), *option, "--"]
        subprocess.run([*command, *program], check=True, capture_output=True)
        stacks = [line.rpartition(" ") for line in out.read_text().splitlines()]
        samples.append(sum(int(count) for stack, _, count in stacks if "train_transform" in stack))
    return samples[1] / samples[0]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="time of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="times that each row is measured")
    parser.add_argument("--needed", nargs="*", default=[], metavar="STEP=IMAGES", help="images/s of a host")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(read(options.read, options.seconds, 1, 0)[0])
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        write_images(folder)
        settings = {
            "1 thread": (1, 0),
            "2 threads": (2, 0),
            "1 process": (1, 1),
            "2 processes": (1, 2),
        }
        speeds = {name: [] for name in (*settings, "2 programs")}
        costs = {name: [] for name in settings}
        for _ in range(options.rounds):
            for name, (threads, processes) in settings.items():
                speed, cpu = read(folder, options.seconds, threads, processes)
                speeds[name].append(speed)
                costs[name] += [] if cpu is None else [cpu]
            speeds["2 programs"].append(read_in_programs(folder, options.seconds, 2))
        cost = statistics.median(costs["1 thread"])
        rows = [
            {
                "reads with": name,
                "images/s": statistics.median(measured),
                "of 1 thread": statistics.median(np.divide(measured, speeds["1 thread"])),
                "CPU ms an image": 1000 * statistics.median(costs[name]) if costs.get(name) else "",
            }
            for name, measured in speeds.items()
        ]
        print_rows("Reading images", rows)
        share = lock_share(folder)
    if share is not None:
        print(f"A thread holds the global lock {share:.0%} of its time: threads use {1 / share:.1f} cores.")
    needs = [step.rpartition("=") for step in options.needed]
    if needs:
        rows = [
            {"step": name, "images/s of a host": float(count), "cores": float(count) * cost}
            for name, _, count in needs
        ]
        print_rows("Cores of a host", rows)


if __name__ == "__main__":
    main()
