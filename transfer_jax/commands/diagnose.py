"""The command `transfer-jax diagnose`, which diagnoses a finished run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from transfer_jax.counted import counted
from transfer_jax.diagnostics.sample_sizes import DiagnosticName, SampleSizes
from transfer_jax.report.console import BARS, OUT, print_line, table

if TYPE_CHECKING:
    from transfer_jax.diagnostics.diagnosis import Diagnostics

_SIZES = SampleSizes()


def diagnose(
    workdir: Annotated[Path, tyro.conf.Positional],
    only: tuple[DiagnosticName, ...] = (),
    sizes: Annotated[SampleSizes, tyro.conf.arg(name="")] = _SIZES,
) -> None:
    """Diagnoses a finished run: calibration, scores by group, changes of each block.

    It also scores the training images, interpolates between the weights at the start and at the end, and
    writes saliency maps of the images. The results are in `diagnostics.json` in the workdir. A diagnostic
    that is in that file is not computed again, unless `--only` names it.

    Args:
        workdir: Folder of a finished run.
        only: Names of the diagnostics to compute; by default all that are missing.
        sizes: Numbers of images and points to use.
    """
    from transfer_jax.diagnostics.diagnosis import diagnose as diagnose_run

    _show(diagnose_run(workdir, only=only, sizes=sizes, progress=BARS), workdir)


def _show(found: "Diagnostics", workdir: Path) -> None:
    """Prints diagnostics as tables."""
    columns = {"similarity (CKA)": found.cka or {}, "distance of weights": found.distance or {}}
    if blocks := {block: None for values in columns.values() for block in values}:
        rows = [
            [block, *(f"{values[block]:.3f}" if block in values else "" for values in columns.values())]
            for block in blocks
        ]
        OUT.print(table(f"Blocks, compared with their {found.start} start", ("block", *columns), rows))
    if found.groups:
        rows = [
            [name, f"{scores['images']:,}", f"{scores['accuracy']:.1%}", f"{scores['balanced_accuracy']:.1%}"]
            for name, scores in found.groups.items()
        ]
        OUT.print(table("Validation images by group", ("group", "images", "accuracy", "balanced"), rows))
    if found.interpolation:
        names = {"accuracy": "accuracy", "log_loss": "log loss"}
        names |= {f"backbone_{name}": f"{shown}, trained head" for name, shown in names.items()}
        names = {name: shown for name, shown in names.items() if name in found.interpolation[0]}
        rows = [
            [f"{point['alpha']:.2f}", *(f"{point[name]:.3f}" for name in names)]
            for point in found.interpolation
        ]
        title = "Between the weights at the start (0) and at the end (1)"
        OUT.print(table(title, ("weight of the end", *names.values()), rows))
    if found.train:
        scores = f"accuracy {found.train['accuracy']:.1%}, log loss {found.train['log_loss']:.3f}"
        print_line(OUT, f"Training images, without augmentation: {scores}")
    if found.calibration:
        print_line(OUT, f"Expected calibration error: {found.calibration['ece']:.1%}")
    if found.maps:
        count, method = counted(len(found.maps), "saliency map"), found.maps[0]["method"]
        print_line(OUT, f"{count} by {method}: {workdir / 'diagnostics'}")
    for name, reason in found.omitted.items():
        print_line(OUT, f"No {name}: {reason}")
