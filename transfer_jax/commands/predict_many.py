"""Predictions and programs of several trained models on one trunk: `--also` of `predict` and `export`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_jax.commands.output_file import check_output_file
from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, CONSOLE, OUT, print_line, table

if TYPE_CHECKING:
    import numpy as np

    from transfer_jax.runs.predict_many import TrainedModels
    from transfer_jax.weights.export_record import Input
    from transfer_jax.weights.program_outputs import Output


def predict_with_all(
    workdirs: Sequence[Path],
    images: Sequence[Path],
    out: Path | None,
    *,
    skip_bad: bool,
    calibrated: bool,
) -> None:
    """Predicts images with several models, and writes a file for each model or prints one table.

    Args:
        workdirs: Folders of finished runs.
        images: Files and folders.
        out: The file; each model has one with its name before the ending. None prints a table.
        skip_bad: Whether to leave out images that cannot be read.
        calibrated: Whether to use the temperature of each model.
    """
    from transfer_jax.data.image_files import image_files
    from transfer_jax.report.predictions import write_predictions
    from transfer_jax.runs.predict import bad_images_text, check_some_good, unlabelled

    models = _models(workdirs, calibrated)
    outs = {} if out is None else {name: out.with_stem(f"{out.stem}-{name}") for name in models.tasks}
    for each in outs.values():
        check_output_file(each, (".csv", ".json", ".parquet"))
    files, notes = image_files(images)
    for note in notes:
        print_line(CONSOLE, note)
    for line in _shared_lines(models):
        print_line(CONSOLE, line)
    dataset, bad = unlabelled(files, next(iter(models.tasks.values()))), {}
    found = models.predict(dataset, progress=BARS, bad=bad if skip_bad else None)
    check_some_good(bad, len(files))
    errors = {index: str(error).removeprefix(f"{dataset.names[index]}: ") for index, error in bad.items()}
    for name, each in outs.items():
        write_predictions(each, dataset.names, models.tasks[name], found[name], errors=errors)
        print_line(OUT, f"{counted(len(files) - len(errors), 'prediction')}: {each}")
    if not outs:
        _print(models, dataset.names, found, errors)
    if bad:
        print_line(CONSOLE, bad_images_text(bad, len(files), "left without a class"))


def export_all(
    workdirs: Sequence[Path],
    to: str,
    out: Path | None,
    *,
    values: "Input | None",
    output: "Output",
    calibrated: bool,
) -> None:
    """Exports several models as one program with an output for each of them.

    Args:
        workdirs: Folders of finished runs.
        to: `onnx` or `stablehlo`.
        out: The file; None is `exported-all` in the first folder.
        values: The input of the program.
        output: The outputs of the program.
        calibrated: Whether to use the temperature of each model.

    Raises:
        ValueError: If the target is another one.
    """
    if to not in ("onnx", "stablehlo"):
        raise ValueError(f"--also is for programs: --to onnx or --to stablehlo, got {to!r}")
    models = _models(workdirs, calibrated)
    file = out or workdirs[0] / f"exported-all.{to}"
    if file.suffix != f".{to}":
        raise ValueError(f"--out must end in .{to}, got {file}")
    with CONSOLE.status(f"exporting to {to}"):
        record = models.export(file, values=values or "float32", output=output)
    print_line(OUT, f"{file}: {file.stat().st_size / 2**20:,.1f} MiB")
    source = record["input"]
    print_line(OUT, f"Input: {source['dtype']} ({', '.join(map(str, source['shape']))}), {source['values']}")
    for name, task in models.tasks.items():
        names = ", ".join(task.names[:10]) + (f" and {len(task.names) - 10:,} more" * (len(task.names) > 10))
        print_line(OUT, f"Output {name!r}: {output} of {names}")
    for line in _shared_lines(models):
        print_line(OUT, line)


def _models(workdirs: Sequence[Path], calibrated: bool) -> "TrainedModels":
    from transfer_jax.runs.predict_many import TrainedModels

    return TrainedModels(workdirs, calibrated=calibrated)


def _shared_lines(models: "TrainedModels") -> list[str]:
    """Returns a line for each group of models on the blocks that they compute once."""
    lines = []
    for group in models.groups:
        names, shared = ", ".join(group.trunk.names), group.trunk.shared
        if len(group.trunk.names) > 1:
            what = f"compute their blocks up to {shared[-1]} once" if shared else "have no block in common"
            lines.append(f"{names} {what}")
        elif len(models.groups) > 1:
            lines.append(f"{names} has preprocessing of its own, and reads the images once more")
    return lines


def _print(
    models: "TrainedModels",
    names: Sequence[str],
    found: "Mapping[str, np.ndarray]",
    errors: Mapping[int, Any],
) -> None:
    """Prints a row for each image, with the answer of each model."""
    import numpy as np

    columns = []
    for name, task in models.tasks.items():
        predictions = np.nan_to_num(found[name])
        pairs = zip(task.answers(predictions), task.confidences(predictions), strict=True)
        columns.append([f"{answer} ({sure})" if sure else answer for answer, sure in pairs])
    rows = [
        [image, *("cannot be read" if index in errors else column[index] for column in columns)]
        for index, image in enumerate(names)
    ]
    OUT.print(table("Predictions", ("image", *models.tasks), rows))
