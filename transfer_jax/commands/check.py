"""The command about images: `transfer-jax check`."""

import json
from pathlib import Path

from transfer_jax.commands.config_options import Config
from transfer_jax.data import load_dataset
from transfer_jax.report.console import BARS, OUT
from transfer_jax.runs.resolve import check_quality
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.training.run import scanned


def check(config: Config, out: Path | None = None) -> None:
    """Look at all images for what spoils a training; nothing is trained.

    Bad files, near duplicates on both sides of the split or under two labels, uneven or tiny classes, files
    that give their class away, images too small. Takes the same configs and options as `train`.

    Args:
        config: The images, how they are split, and the network.
        out: A JSON file to write the findings to.
    """
    dataset = load_dataset(config.images, config.data_dir)
    found = check_quality(config, dataset, scanned(dataset, BARS))
    if out is not None:
        write_text(out, json.dumps([finding.to_json() for finding in found], indent=1))
    for finding in found:
        OUT.print(str(finding), highlight=False, markup=False, soft_wrap=True)
    counts = ", ".join(f"{name} {count:,}" for name, count in [*dataset.counts().items()][:10])
    more = " …" if len(dataset.class_names) > 10 else ""
    OUT.print(
        f"{len(dataset):,} images ({counts}{more}), {len(found)} findings", highlight=False, markup=False
    )
