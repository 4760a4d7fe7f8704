"""The command `transfer-jax check`, which checks images."""

import dataclasses
import json
from pathlib import Path

from transfer_jax.commands.config_options import Config, Given
from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, OUT, print_line


def check(config: Config, out: Path | None = None, given: Given = None) -> None:
    """Checks all images for problems; nothing is trained.

    It finds files that cannot be decoded, near duplicates on both sides of the split or with two labels,
    uneven and tiny classes, files whose names or sizes reveal their class, and images that are too small.
    It takes the same configs and options as `train`.

    Args:
        config: The images, their split and the network.
        out: JSON file to write the findings to.
        given: The fields that options set.
    """
    from transfer_jax.commands.output_file import check_output_file
    from transfer_jax.data.split import divisible_counts
    from transfer_jax.planning.defaults import chosen_fraction
    from transfer_jax.planning.network import expected_input
    from transfer_jax.runs.config_images import config_images
    from transfer_jax.runs.images import check_quality, scan_with_progress
    from transfer_jax.storage.atomic_write import write_text

    check_output_file(out, (".json",))
    dataset = config_images(config)
    scan = scan_with_progress(dataset, BARS)
    if given is not None and "val_fraction" not in given:  # The fraction that `train` chooses.
        images = divisible_counts(dataset, None)
        units = divisible_counts(dataset, scan.groups) if config.keep_together else images
        fraction = chosen_fraction(images[units > 1].tolist(), int(units[units > 1].sum()))
        config = dataclasses.replace(config, val_fraction=fraction)
    found = check_quality(config, dataset, scan, expected_input(config).image_size)
    if out is not None:
        write_text(out, json.dumps([finding.to_json() for finding in found], indent=1))
    for finding in found:
        print_line(OUT, str(finding))
    classes = ", ".join(f"{name} {count:,}" for name, count in [*dataset.counts().items()][:10])
    more = " …" if len(dataset.class_names) > 10 else ""
    images, findings = counted(len(dataset), "image"), counted(len(found), "finding")
    print_line(OUT, f"{images} ({classes}{more}), {findings}")
