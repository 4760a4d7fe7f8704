"""The commands about runs and their models: `transfer-jax demo | train | launch | evaluate | predict`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from transfer_jax import studies
from transfer_jax.commands.config_options import Config, Given, default_workdir, settled
from transfer_jax.data import has_own_split, load_dataset, stratified_split
from transfer_jax.distributed.launch import launch as run_processes
from transfer_jax.report.console import BARS, CONSOLE, OUT, table
from transfer_jax.report.predictions import write_predictions
from transfer_jax.runs import fit
from transfer_jax.runs.predict import image_files, predict_dataset, unlabelled
from transfer_jax.runs.result import Result
from transfer_jax.runs.workdir import read_config
from transfer_jax.storage import workdir_files
from transfer_jax.storage.remote import display_path, local_of, pull
from transfer_jax.training.evaluation import evaluation_metrics
from transfer_jax.training.run import images_of, split_images
from transfer_jax.weights.saved_model import SavedModel


def demo(quick: bool = False, workdir: Path | None = None, seed: int = 0) -> None:
    """Adapt a real network to real photographs in three ways, and compare them.

    Args:
        quick: A few epochs on small images, to see that all works.
        workdir: Folder of the runs; `runs/demo`, or `runs/demo-quick`.
        seed: Seed of the split and of the training.
    """
    folder = workdir or Path("runs", "demo-quick" if quick else "demo")
    rows = []
    for name, result in studies.demo(folder, quick=quick, seed=seed, progress=BARS):
        rows += studies.table_rows(name, result)
    OUT.print(table("ELPV solar cells, EfficientNet-Lite0", studies.COLUMNS, rows))
    OUT.print(f"Models and reports: {folder}", markup=False)


def train(
    config: Config,
    workdir: Path | None = None,
    force_config: bool = False,
    profile: bool = False,
    check: bool = True,
    given: Given = None,
    typed: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> None:
    """Train a schedule, or go on with it where it was stopped.

    `transfer-jax train CONFIG` trains an experiment: a Python file, or the name of one that comes along.
    `transfer-jax train RUN/config.json` trains again what a run did.
    `transfer-jax train --images DIR` fine-tunes on a folder with a subfolder a class; what you do not say is
    chosen by what is in the folder, and each choice explained. Every field of the config is an option.

    Args:
        config: What to train.
        workdir: Folder of the run; `runs/` and the name of the images, if not given.
        force_config: Go on in a folder that was begun with another config; what differs is not undone.
        profile: Record ten steps in `profile` there, for xprof, TensorBoard or Perfetto.
        check: Look at all images first, as `transfer-jax check` does.
        given: The fields that options set.
        typed: The command, word by word.
    """
    folder = workdir or default_workdir(config)
    found = settled(config, given, folder, look=check)
    options = {"force": force_config, "profile": profile, "command": typed, "notes": found.notes}
    _show_result(fit(found.config, folder, progress=BARS, **options))


def launch(
    processes: int,
    devices: int | None = None,
    restarts: int = 3,
    pause: float = 1.0,
    grace: float = 60.0,
    command: Annotated[tuple[str, ...], tyro.conf.Suppress] = ("train", "--help"),
) -> int:
    """Train or extract in several processes on this machine, and start again where one of them dies.

    `transfer-jax launch --processes 2 -- train CONFIG …`. On a cluster its scheduler does this.

    Args:
        processes: Number of processes.
        devices: Devices of a CPU that each has.
        restarts: How often to start again, at most; a run goes on from its last checkpoint.
        pause: Seconds before the first time, twice as many before each next one.
        grace: Seconds to save and end in, after Ctrl-C or SIGTERM.
        command: What stands behind `--`.
    """
    options = {"devices": devices, "restarts": restarts, "pause": pause, "grace": grace}
    return run_processes(command, processes, **options, log=CONSOLE.print)


def evaluate(workdir: Annotated[Path, tyro.conf.Positional], images: str | None = None) -> None:
    """Score a trained model.

    Args:
        workdir: Folder of a finished run.
        images: Labelled images, as for `train`; the run's held-out images if not given.
    """
    workdir = local_of(workdir)
    pull(workdir, skip=("features",))
    saved = SavedModel.describe(workdir)
    if images is None:
        config = read_config(workdir)
        _, dataset = split_images(images_of(config, workdir, BARS), config)
    else:
        dataset = load_dataset(images)
        if has_own_split(dataset):
            _, dataset = stratified_split(dataset, 0.5, 0)  # The source says which are to evaluate on.
    if dataset.class_names != saved.class_names:
        raise ValueError(f"the model knows the classes {saved.class_names}, the images {dataset.class_names}")
    probabilities = predict_dataset(workdir, dataset, progress=BARS)
    truth = (dataset.labels, dataset.class_names, dataset.weights)
    scores = evaluation_metrics(probabilities, *truth)
    OUT.print(scores_table(scores))


def predict(
    workdir: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path | None = None,
) -> None:
    """Classify image files.

    Args:
        workdir: Folder of a finished run.
        images: Files and folders.
        out: A `.csv` or `.json` file to write; without it a table is shown.
    """
    files = image_files(images)
    if out is not None and out.suffix not in (".csv", ".json"):
        raise ValueError(f"--out must end in .csv or .json, got {out}")
    if out is not None and not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}")
    saved = SavedModel.describe(workdir)
    dataset = unlabelled(files, saved.class_names)
    probabilities = predict_dataset(workdir, dataset, progress=BARS)
    if out is not None:
        write_predictions(out, dataset.names, saved.class_names, probabilities)
        OUT.print(f"{len(files)} predictions: {out}", markup=False)
        return
    rows = [
        [name, saved.class_names[int(row.argmax())], f"{row.max():.1%}"]
        for name, row in zip(dataset.names, probabilities, strict=True)
    ]
    OUT.print(table("Predictions", ("image", "class", "probability"), rows))


def scores_table(scores: Mapping[str, Any]) -> Table:
    """The scores of `evaluation_metrics`, by class."""
    rows = [
        [name, f"{row['precision']:.1%}", f"{row['recall']:.1%}", f"{row['f1']:.1%}", str(row["images"])]
        for name, row in scores["per_class"].items()
    ]
    auc = "" if scores["roc_auc"] is None else f", ROC AUC {scores['roc_auc']:.3f}"
    weighted = f" ({scores['weighted_accuracy']:.1%} weighted)" if "weighted_accuracy" in scores else ""
    title = (
        f"Held-out images: accuracy {scores['accuracy']:.1%}{weighted}, "
        f"balanced {scores['balanced_accuracy']:.1%}, macro F1 {scores['macro_f1']:.1%}{auc}"
    )
    return table(title, ("class", "precision", "recall", "F1", "images"), rows)


def _show_result(result: Result) -> None:
    OUT.print(table("Phases", studies.COLUMNS, studies.table_rows(result.workdir.name, result)))
    OUT.print(scores_table(result.metrics))
    OUT.print(_goodput_line(result.goodput), highlight=False, markup=False)
    workdir = display_path(result.workdir)
    OUT.print(f"Model, predictions and proof: {workdir}", markup=False)
    OUT.print(f"Try it: transfer-jax predict {workdir} IMAGE …", highlight=False, markup=False)
    report = result.workdir / workdir_files.REPORT
    if report.exists():
        OUT.print(f"Look at it: {display_path(report)}", highlight=False, markup=False, soft_wrap=True)


def _goodput_line(goodput: dict) -> str:
    seconds = {part.replace("_", "-"): spent for part, spent in goodput["seconds"].items()}
    total = max(sum(seconds.values()), 1e-9)
    parts = sorted(
        (part for part in seconds if seconds[part] >= 0.01 * total), key=lambda part: -seconds[part]
    )
    shown = ", ".join(f"{part} {seconds[part] / total:.0%}" for part in parts)
    return f"Of {total:,.0f} s: {shown}; {goodput['verdict']}"
