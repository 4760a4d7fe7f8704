"""The command `transfer-jax pack`, which writes images into few large files."""

import shlex
from typing import Annotated

import tyro

from transfer_jax.config.data_config import TaskChoice
from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, OUT, print_line


def pack(
    images: Annotated[str, tyro.conf.Positional],
    out: Annotated[str, tyro.conf.Positional],
    shards: int | None = None,
    threads: int | None = None,
    task: TaskChoice = "auto",
) -> None:
    """Packs images and their labels into array_record shards, which are read faster than files.

    Takes a folder with one subfolder for each class, a table, or any other source of `train --images`, on a
    disk or in object storage. Encoded images are copied bit for bit. Train on the result with
    `--images records:OUT`. A packing that was stopped or killed continues with the missing shards.

    Args:
        images: The images, as in `train --images`.
        out: The folder of the shards, or an address such as `gs://BUCKET/FOLDER`.
        shards: Number of shards; by default one for each 256 MB.
        threads: Number of shards that are written at a time; by default the number of cores, up to 16.
        task: The kind of targets, as in `train --task`.
    """
    from transfer_jax.data.remote.pack import pack as packed
    from transfer_jax.data.sources import load_dataset

    dataset = load_dataset(images, least_classes=1, task=task, progress=BARS)
    for note in dataset.notes:
        print_line(OUT, note)
    count = packed(dataset, out, shards=shards, threads=threads, progress=BARS)
    load_dataset(f"records:{out}", progress=BARS)  # Writes the index.
    written = "all shards were there" if not count else f"{counted(count, 'image')} written"
    print_line(OUT, f"{counted(len(dataset), 'image')} in {out} ({written})")
    print_line(OUT, f"Next: transfer-jax train --images {shlex.quote(f'records:{out}')}")
