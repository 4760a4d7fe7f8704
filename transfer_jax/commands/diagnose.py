"""The command about what fine-tuning did to a network: `transfer-jax diagnose`."""

from pathlib import Path
from typing import Annotated

import tyro

from transfer_jax import diagnostics
from transfer_jax.diagnostics import DiagnosticName, Diagnostics, SampleSizes
from transfer_jax.report.console import BARS, OUT, table

_SIZES = SampleSizes()


def diagnose(
    workdir: Annotated[Path, tyro.conf.Positional],
    only: tuple[DiagnosticName, ...] = (),
    sizes: Annotated[SampleSizes, tyro.conf.arg(name="")] = _SIZES,
) -> None:
    """Find out what fine-tuning did to a network, and how good it is where.

    Calibration, scores by group and on the images trained on; how far weights and activations of each block
    are from where they began, and what lies between; pictures of what the network looked at. All goes into
    `diagnostics.json` of the run. What is there already is not computed again, unless `--only` names it.

    Args:
        workdir: Folder of a finished run.
        only: Parts to compute; all that are not there yet, if not given.
        sizes: How much to look at.
    """
    found = diagnostics.diagnose(workdir, only=only, sizes=sizes, progress=BARS)
    _show(found, workdir)


def _show(found: Diagnostics, workdir: Path) -> None:
    columns = {"similarity (CKA)": found.cka or {}, "distance of weights": found.distance or {}}
    if blocks := {block: None for values in columns.values() for block in values}:
        rows = [
            [block, *(f"{values[block]:.3f}" if block in values else "" for values in columns.values())]
            for block in blocks
        ]
        OUT.print(table(f"Blocks, against their {found.start} start", ("block", *columns), rows))
    if found.groups:
        rows = [
            [name, str(scores["images"]), f"{scores['accuracy']:.1%}", f"{scores['balanced_accuracy']:.1%}"]
            for name, scores in found.groups.items()
        ]
        OUT.print(table("Held-out images by group", ("group", "images", "accuracy", "balanced"), rows))
    if found.interpolation:
        names = {"accuracy": "accuracy", "log_loss": "log loss"}
        names |= {f"backbone_{name}": f"{shown}, trained head" for name, shown in names.items()}
        names = {name: shown for name, shown in names.items() if name in found.interpolation[0]}
        rows = [
            [f"{place['alpha']:.2f}", *(f"{place[name]:.3f}" for name in names)]
            for place in found.interpolation
        ]
        OUT.print(table("From start to end", ("share", *names.values()), rows))
    if found.train:
        scores = found.train
        OUT.print(
            f"Images trained on, without augmentation: accuracy {scores['accuracy']:.1%}, "
            f"log loss {scores['log_loss']:.3f}"
        )
    if found.calibration:
        OUT.print(f"Expected calibration error: {found.calibration['ece']:.1%}")
    if found.maps:
        OUT.print(
            f"{len(found.maps)} pictures of what it looked at, by {found.maps[0]['method']}: "
            f"{workdir / 'diagnostics'}",
            markup=False,
        )
    for part, reason in found.omitted.items():
        OUT.print(f"No {part}: {reason}", markup=False)
