"""The command `transfer-jax check`, which checks images."""

import json
from pathlib import Path

from transfer_jax.commands.config_options import Config
from transfer_jax.report.console import BARS, OUT, counted, print_line


def check(config: Config, out: Path | None = None) -> None:
    """Checks all images for problems; nothing is trained.

    It finds files that cannot be decoded, near duplicates on both sides of the split or with two labels,
    uneven and tiny classes, files whose names or sizes reveal their class, and images that are too small.
    It takes the same configs and options as `train`.

    Args:
        config: The images, their split and the network.
        out: JSON file to write the findings to.
    """
    from transfer_jax.commands.output_file import check_output_file
    from transfer_jax.data.sources import load_dataset
    from transfer_jax.planning.network import expected_input
    from transfer_jax.runs.images import check_quality, scan_with_progress
    from transfer_jax.storage.atomic_write import write_text

    check_output_file(out, (".json",))
    dataset = load_dataset(config.images, config.data_dir)
    scan = scan_with_progress(dataset, BARS)
    found = check_quality(config, dataset, scan, expected_input(config).image_size)
    if out is not None:
        write_text(out, json.dumps([finding.to_json() for finding in found], indent=1))
    for finding in found:
        print_line(OUT, str(finding))
    classes = ", ".join(f"{name} {count:,}" for name, count in [*dataset.counts().items()][:10])
    more = " …" if len(dataset.class_names) > 10 else ""
    images, findings = counted(len(dataset), "image"), counted(len(found), "finding")
    print_line(OUT, f"{images} ({classes}{more}), {findings}")
