"""How fast are images read into batches?

    python benchmarks/input_pipeline.py --out input_pipeline.json

Writes the solar cells as colour JPEG files and reads them: decoded, cropped to 224 pixels and flipped, at
random as for training or in the centre as for validation, with bicubic interpolation. Ours are threads,
which return uint8 and leave normalization to the device. torchvision's transforms run in the worker
processes of PyTorch's loader, as its users set them up, and return normalized float32. tf.data, if
TensorFlow is installed, decodes only the crop, and also returns normalized float32. All of them resize with
antialiasing, and use one thread or worker for each core. Images per second are valid on an idle machine only,
the CPU time of an image (all threads and worker processes) on any.
"""

import argparse
import datetime
import functools
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from contest import contest, report
from PIL import Image

from transfer_jax.data import from_elpv
from transfer_jax.distributed import processes

SIZE = 224
PACKAGES = ("grain", "pillow", "torch", "torchvision", "tensorflow")


def write_images(folder: Path, side: int) -> None:
    """Writes the cells as JPEG files, a folder for each class."""
    cells = from_elpv()
    for index in range(len(cells)):
        path = folder / cells.class_names[cells.labels[index]] / f"{index:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(cells.image(index)).resize((side, side), Image.Resampling.BICUBIC).save(
            path, quality=90
        )


def ours(folder: str, batch: int, batches: int, workers: int, train: bool) -> Callable[[], Any]:
    """Returns the batches that `fit` trains on, or validates with."""
    from transfer_jax import Augmentation
    from transfer_jax.data import (
        augmented_image_fetch,
        from_folder,
        image_fetch,
        ordered_batches,
        shuffled_batches,
    )
    from transfer_jax.models.registry import variant_of

    dataset, preprocessing = from_folder(folder), variant_of("resnet50").preprocessing
    if train:
        fetch = augmented_image_fetch(dataset, preprocessing, Augmentation(crop_scale=(0.08, 1.0)))
        found = shuffled_batches(fetch, len(dataset), batch_size=batch, seed=0, threads=workers)
    else:
        fetch = image_fetch(dataset, preprocessing)
        found = ordered_batches(fetch, len(dataset), batch_size=batch, threads=workers)
    return _Calls(lambda: iter(found), batches)


def torch_loader(folder: str, batch: int, batches: int, workers: int, train: bool) -> Callable[[], Any]:
    """Returns the batches of PyTorch's loader."""
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2

    bicubic = v2.InterpolationMode.BICUBIC
    if train:
        crop = [v2.RandomResizedCrop(SIZE, interpolation=bicubic), v2.RandomHorizontalFlip()]
    else:
        crop = [v2.Resize(256, bicubic), v2.CenterCrop(SIZE)]
    to_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.5,) * 3, (0.25,) * 3)]
    images = datasets.ImageFolder(folder, v2.Compose([*crop, *to_float]))
    loader = torch.utils.data.DataLoader(
        images, batch_size=batch, shuffle=train, num_workers=workers, persistent_workers=True, drop_last=True
    )
    return _Calls(lambda: iter(loader), batches)


def tf_data(folder: str, batch: int, batches: int, workers: int, train: bool) -> Callable[[], Any]:
    """Returns the batches of tf.data, with the operations of TensorFlow's own examples for ImageNet."""
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(workers)
    tf.config.threading.set_intra_op_parallelism_threads(workers)
    files, classes = [], sorted(path.name for path in Path(folder).iterdir())
    for label, name in enumerate(classes):
        files += [(str(path), label) for path in sorted((Path(folder) / name).iterdir())]

    def window(shape: Any) -> Any:
        if train:
            whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
            start, size, _ = tf.image.sample_distorted_bounding_box(
                shape, whole, area_range=(0.08, 1.0), aspect_ratio_range=(3 / 4, 4 / 3)
            )
            return tf.stack([start[0], start[1], size[0], size[1]])
        side = tf.cast(tf.cast(tf.minimum(shape[0], shape[1]), tf.float32) * SIZE / 256, tf.int32)
        return tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])

    def read(path: Any, label: Any) -> Any:
        data = tf.io.read_file(path)
        crop = window(tf.io.extract_jpeg_shape(data))
        image = tf.io.decode_and_crop_jpeg(data, crop, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE), method="bicubic", antialias=True)
        if train:
            image = tf.image.random_flip_left_right(image)
        return (image / 255 - 0.5) / 0.25, label

    paths, labels = (list(column) for column in zip(*files, strict=True))
    found = tf.data.Dataset.from_tensor_slices((paths, labels))
    if train:
        found = found.shuffle(len(files))
    found = found.map(read, num_parallel_calls=workers, deterministic=True)
    found = found.batch(batch, drop_remainder=True).prefetch(2)
    return _Calls(lambda: iter(found.as_numpy_iterator()), batches)


class _Calls:
    """Calls that read some batches each from one iterator, which restarts at its end.

    The fact `cpu_seconds` is the CPU time of a batch, of this process and its workers, after the first call.
    """

    def __init__(self, start: Callable[[], Iterator[Any]], batches: int) -> None:
        self._start, self._batches = start, batches
        self._iterator, self._calls, self._before = start(), 0, 0.0

    def __call__(self) -> None:
        for _ in range(self._batches):
            if next(self._iterator, None) is None:
                self._iterator = self._start()
        if not self._calls:
            self._before = _cpu_seconds()
        self._calls += 1

    @property
    def facts(self) -> dict[str, float]:
        """The facts of a `Timing`."""
        return {"cpu_seconds": (_cpu_seconds() - self._before) / ((self._calls - 1) * self._batches)}


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and its workers."""
    own = psutil.Process()
    times = [each.cpu_times() for each in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", type=int, default=400, help="side of the files' images in pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=30, help="batches in a timed call")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    workers, rows = processes.cores(), []
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), arguments.side)
        for train in (True, False):
            given = (folder, arguments.batch, arguments.batches, workers, train)
            contenders = {
                "transfer_jax": functools.partial(ours, *given),
                "torchvision": functools.partial(torch_loader, *given),
            }
            if importlib.util.find_spec("tensorflow"):
                contenders["tf.data"] = functools.partial(tf_data, *given)
            timings = contest(contenders, rounds=arguments.rounds)
            images = arguments.batch * arguments.batches
            rows += [
                {
                    "crops": "random" if train else "central",
                    "program": name,
                    "images/s": images / timing.median,
                    "CPU ms an image": 1e3 * timing.facts["cpu_seconds"] / arguments.batch,
                    "start-up s": timing.prepare,
                    "peak GB": timing.peak / 1e9,
                    "ours is": timing.median / timings["transfer_jax"].median,
                }
                for name, timing in timings.items()
            ]
    title = f"Files of {arguments.side} px, batches of {arguments.batch}, {datetime.date.today()}"
    report(title, rows, arguments.out, packages=PACKAGES)


if __name__ == "__main__":
    main()
