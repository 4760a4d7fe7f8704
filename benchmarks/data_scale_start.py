"""The start of a run on a large set: labels, split and what a run records of its images.

Each measurement is a process of its own: CPU seconds, bytes read and peak memory above that of the imports.

    python benchmarks/data_scale.py start make FOLDER [--images 1281167] [--classes 1000]
    python benchmarks/data_scale.py start start FOLDER
    python benchmarks/data_scale.py start folder FOLDER [--images 250000]
    python benchmarks/data_scale.py start labels FOLDER [--images 14197122] [--classes 21843]

`make` writes 256 array_record shards of JPEG images of about 1.3 KB, as tensorflow-datasets does. `start`
loads them twice, without and with an index, as a start does: labels, split, fingerprints of the parts.
`folder` makes a folder of small JPEG files and loads it twice. `labels` makes an index alone, without images.
"""

import argparse
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SHARDS, SIZE = 256, 40


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def example(image: bytes, label: int) -> bytes:
    """Returns a serialized `tf.train.Example`."""
    values = {b"image": _field(1, _field(1, image)), b"label": _field(3, _field(1, _varint(label)))}
    return _field(1, b"".join(_field(1, _field(1, key) + _field(2, value)) for key, value in values.items()))


def jpegs(count: int) -> list[bytes]:
    """Returns small encoded photographs that differ."""
    import numpy as np
    import skimage.data
    from PIL import Image

    cat, found = Image.fromarray(skimage.data.chelsea()), []
    rng = np.random.default_rng(0)
    for _ in range(count):
        left, top = int(rng.integers(0, 451 - 3 * SIZE)), int(rng.integers(0, 300 - 3 * SIZE))
        file = io.BytesIO()
        crop = cat.crop((left, top, left + 3 * SIZE, top + 3 * SIZE)).resize((SIZE, SIZE))
        crop.save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def make(folder: Path, images: int, classes: int) -> None:
    """Writes a prepared dataset `scale`; the labels are at random."""
    import numpy as np
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

    place = folder / "scale" / "1.0.0"
    if (place / "dataset_info.json").exists():
        return
    place.mkdir(parents=True, exist_ok=True)
    files, labels = jpegs(500), np.random.default_rng(1).integers(0, classes, images)
    ends = np.linspace(0, images, SHARDS + 1).astype(int)
    for shard in range(SHARDS):
        path = place / f"scale-train.array_record-{shard:05d}-of-{SHARDS:05d}"
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
        for i in range(ends[shard], ends[shard + 1]):
            writer.write(example(files[i % len(files)], int(labels[i])))
        writer.close()
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=[f"n{i:08d}" for i in range(classes)]),
        }
    )
    features.save_config(os.fspath(place))
    split = {
        "name": "train",
        "numBytes": str(sum(each.stat().st_size for each in place.glob("*record*"))),
        "shardLengths": [*map(str, np.diff(ends).tolist())],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": "scale", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    info["supervisedKeys"] = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}}
    (place / "dataset_info.json").write_text(json.dumps(info))


def make_folder(folder: Path, images: int, classes: int) -> None:
    """Writes a folder of class folders of small JPEG files."""
    if (folder / f"class{classes - 1:04d}").exists():
        return
    files = jpegs(500)
    for label in range(classes):
        inner = folder / f"class{label:04d}"
        inner.mkdir(parents=True)
        for i in range(label, images, classes):
            (inner / f"{i:08d}.jpg").write_bytes(files[i % len(files)])


def _read_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def measured(title: str, function: Callable[[], object]) -> None:
    """Prints CPU seconds, bytes read and the growth of the peak memory of a function."""
    before, read, started = _peak(), _read_bytes(), time.process_time()
    result = function()
    seconds = time.process_time() - started
    print(
        f"{title}: {seconds:.2f} CPU s, {(_read_bytes() - read) / 1e6:.1f} MB read, "
        f"+{_peak() - before:.0f} MB memory",
        flush=True,
    )
    del result


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def load(source: str, data_dir: Path | None) -> object:
    """Does the data part of a start: list, split, identity of the parts."""
    from transfer_jax.data import load_dataset, split_in_parts
    from transfer_jax.runs.run_start import PartStart

    dataset = load_dataset(source, data_dir)
    parts = split_in_parts(dataset, 0.2)
    return dataset, parts, [PartStart.of(part) for part in (parts.train, parts.validation)]


def stages(source: str, data_dir: Path | None) -> None:
    """Prints each stage of a start."""
    from transfer_jax.data import load_dataset, split_in_parts
    from transfer_jax.runs.run_start import PartStart

    found: list = []
    measured("  list of images", lambda: found.append(load_dataset(source, data_dir)))
    print(f"  {len(found[0]):,} images of {len(found[0].class_names):,} classes")
    measured("  split", lambda: found.append(split_in_parts(found[0], 0.2)))
    measured("  identity of the parts", lambda: [PartStart.of(part) for part in found[1][:2]])


def imports() -> None:
    """Imports all that a start needs before the data."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

    from transfer_jax.data import load_dataset
    from transfer_jax.runs.resolve import resolve

    assert tfds.features.FeaturesDict
    assert tfds.core.DatasetInfo
    assert array_record_module.ArrayRecordReader
    assert load_dataset
    assert resolve


def measure_labels(images: int, classes: int, place: Path) -> None:
    """Makes an index of labels alone and splits it."""
    import numpy as np

    from transfer_jax.data.contents import NumberedNames
    from transfer_jax.data.dataset import ImageDataset
    from transfer_jax.data.index import PartIndex, build_index, index_place
    from transfer_jax.data.parts import split_in_parts
    from transfer_jax.runs.run_start import PartStart

    names = tuple(f"n{i:08d}" for i in range(classes))
    ends = np.linspace(0, images, 1025).astype(int)
    parts = [[int(first), int(end)] for first, end in itertools.pairwise(ends)]

    def read(part: list[int]) -> PartIndex:
        rng = np.random.default_rng(part[0])
        skewed = (classes * rng.random(part[1] - part[0]) ** 2).astype(np.int32)
        return PartIndex({"labels": skewed})

    def opened() -> ImageDataset:
        index = build_index("labels", {"classes": classes}, parts, read, index_place(place, "labels"))
        labels = index.column("labels")
        return ImageDataset(
            read=_jpeg, labels=labels, names=NumberedNames("train ", len(labels)), class_names=names,
            fingerprint=index.fingerprint,
        )  # fmt: skip

    found: list = []
    measured("  index", lambda: found.append(opened()))
    measured("  split", lambda: found.append(split_in_parts(found[0], 0.01)))
    measured("  identity of the parts", lambda: [PartStart.of(part) for part in found[1][:2]])


def _jpeg(index: int) -> bytes:
    return b"%d" % index


def _again(*arguments: str) -> None:
    subprocess.run([sys.executable, __file__, *arguments], check=True)


def main() -> None:
    """Runs one of the subcommands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("make", "start", "folder", "labels", "one", "one-labels"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("/tmp/data_scale"))
    parser.add_argument("--images", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--source", default="tfds:scale")
    choice = parser.parse_args()
    if choice.what == "make":
        make(choice.folder, choice.images or 1_281_167, choice.classes or 1000)
    elif choice.what == "start":
        for title in ("first start", "next start"):
            print(title, flush=True)
            _again("one", os.fspath(choice.folder))
    elif choice.what == "folder":
        place = choice.folder / "images"
        make_folder(place, choice.images or 250_000, choice.classes or 1000)
        for title in ("first start", "next start"):
            print(title, flush=True)
            _again("one", os.fspath(choice.folder), "--source", f"folder:{place}")
    elif choice.what == "labels":
        count = ("--images", str(choice.images or 14_197_122), "--classes", str(choice.classes or 21_843))
        for title in ("first start", "next start"):
            print(title, flush=True)
            _again("one-labels", os.fspath(choice.folder), *count)
    elif choice.what == "one":
        imports()
        measured(choice.source, lambda: stages(choice.source, choice.folder))
    else:
        imports()
        choice.folder.mkdir(parents=True, exist_ok=True)
        measured("labels", lambda: measure_labels(choice.images, choice.classes, choice.folder))


if __name__ == "__main__":
    main()
