"""The commands on runs and their models: `transfer-jax demo | train | launch | evaluate | predict`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import RenderableType

from transfer_jax.commands.config_options import Config, Given, default_workdir, resumed_or_resolved_run
from transfer_jax.config import OnBadImage
from transfer_jax.report.console import BARS, CONSOLE, OUT, counted, print_line, table
from transfer_jax.storage import workdir_files

if TYPE_CHECKING:
    import numpy as np

    from transfer_jax.runs.result import Result

_MOST_CLASSES = 30
"""The largest number of classes in a printed table of scores."""


def demo(quick: bool = False, workdir: Path | None = None, seed: int = 0) -> None:
    """Fine-tunes a real network on real photographs in three ways.

    The photographs show solar cells (ELPV), the network is EfficientNet-Lite0. Each way has a report of its
    own; the tables compare them.

    Args:
        quick: Whether to train a few epochs on small images, to see that everything works.
        workdir: Folder of the runs; by default `runs/demo`, or `runs/demo-quick`.
        seed: Seed of the split and of the training.
    """
    from transfer_jax.runs.demo import COLUMNS, run_demo, table_rows

    folder = workdir or Path("runs", "demo-quick" if quick else "demo")
    rows = []
    for name, result in run_demo(folder, quick=quick, seed=seed, progress=BARS):
        rows += table_rows(name, result)
        scores = result.metrics
        accuracy = f"accuracy {scores['accuracy']:.1%}, balanced {scores['balanced_accuracy']:.1%}"
        print_line(OUT, f"{name}: {accuracy}; {result.workdir / workdir_files.REPORT}")
    OUT.print(table("Solar cells (ELPV), EfficientNet-Lite0", COLUMNS, rows))
    print_line(OUT, f"Models and reports: {folder}")


def train(
    config: Config,
    workdir: Path | None = None,
    force_config: bool = False,
    profile: bool = False,
    check: bool = True,
    given: Given = None,
    typed: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> None:
    """Trains a schedule, or resumes it.

    With `--images DIR` it fine-tunes a network on a folder with one subfolder for each class. Settings that
    you leave out are chosen from the images, and printed with their reasons. Every field of the config is an
    option.

    With a config, `transfer-jax train CONFIG`, it trains that: a Python file, the name of a shipped config,
    or the `config.json` of a run.

    The same command resumes a run that was stopped.

    Args:
        config: The config.
        workdir: Folder of the run; by default `runs/` and the name of the images.
        force_config: Whether to resume an unfinished run with another config. It may change what affects only
            the steps to come; `earlier_configs.json` keeps the config before.
        profile: Whether to record ten steps in `profile` in the workdir, for xprof, TensorBoard or Perfetto.
        check: Whether to check all images first, as `transfer-jax check` does.
        given: The fields that options set.
        typed: The command line, word by word.
    """
    from transfer_jax.runs import fit

    folder = workdir or default_workdir(config)
    run = resumed_or_resolved_run(config, given, folder, scan=check)
    options = {"force": force_config, "profile": profile, "command": typed}
    _show_result(fit(run, folder, progress=BARS, **options))


def launch(
    processes: int,
    devices: int | None = None,
    restarts: int = 3,
    pause: float = 1.0,
    grace: float = 60.0,
    command: Annotated[tuple[str, ...], tyro.conf.Suppress] = ("train", "--help"),
) -> int:
    """Trains or extracts in several processes on this machine, and restarts them after a failure.

    The command stands behind `--`: `transfer-jax launch --processes 2 -- train CONFIG ...`. On a cluster its
    scheduler starts the processes instead.

    Args:
        processes: Number of processes.
        devices: Number of CPU devices of each process; by default one.
        restarts: Largest number of restarts; the run resumes from its last checkpoint.
        pause: Seconds before the first restart; twice as many before each next one.
        grace: Seconds that the processes have to save and end after Ctrl-C or SIGTERM.
        command: The command behind `--`.
    """
    from transfer_jax.distributed.launch import launch as launch_processes

    options = {"devices": devices, "restarts": restarts, "pause": pause, "grace": grace}
    return launch_processes(command, processes, **options, log=CONSOLE.print)


def evaluate(
    workdir: Annotated[Path, tyro.conf.Positional],
    images: str | None = None,
    on_bad_image: OnBadImage = "skip",
) -> None:
    """Evaluates a trained model on labelled images.

    Args:
        workdir: Folder of a finished run.
        images: Labelled images, as for `train`; by default the validation images of the run. If they have
            their own split, only their validation part is used.
        on_bad_image: `skip` leaves an image that cannot be read out of the scores, and prints its name;
            `error` stops at it.
    """
    import numpy as np

    from transfer_jax.data.dataset import with_classes
    from transfer_jax.data.sources import load_dataset
    from transfer_jax.data.split import has_own_split, stratified_split
    from transfer_jax.runs.images import run_images, split_images
    from transfer_jax.runs.predict import bad_images_text, check_some_good, predict_dataset
    from transfer_jax.runs.run_start import check_images, count_trained
    from transfer_jax.runs.workdir import read_config
    from transfer_jax.storage.remote import local_path, pull
    from transfer_jax.training.evaluation import evaluation_metrics
    from transfer_jax.weights.saved_model import SavedModel

    workdir = local_path(workdir)
    pull(workdir, skip=("features",))
    saved = SavedModel.describe(workdir)
    if images is None:
        if not (workdir / workdir_files.CONFIG).exists():
            raise ValueError(f"{workdir} has a model, but no images of a run: name some with --images")
        config = read_config(workdir)
        _, dataset = split_images(run_images(config, BARS, workdir=workdir), config)
        check_images(workdir, config.images, {"validation": dataset})
    else:
        dataset = load_dataset(images, least_classes=1)
        for note in dataset.notes:
            print_line(CONSOLE, note)
        if has_own_split(dataset):
            _, dataset = stratified_split(dataset, 0.5, 0)  # The fraction and the seed have no effect.
        elif trained := count_trained(workdir, dataset):
            print_line(
                CONSOLE,
                f"{trained:,} of these {len(dataset):,} images are the training images of the run, so the "
                "scores are too high; without --images, its validation images are evaluated",
            )
    dataset = with_classes(dataset, saved.class_names)
    bad = {}
    probabilities = predict_dataset(
        workdir, dataset, progress=BARS, bad=bad if on_bad_image == "skip" else None
    )
    check_some_good(bad, len(dataset))
    if bad:
        print_line(CONSOLE, bad_images_text(bad, len(dataset), "left out of the scores"))
    good = np.isin(np.arange(len(dataset)), [*bad], invert=True)
    weights = None if dataset.weights is None else dataset.weights[good]
    scores = evaluation_metrics(probabilities[good], dataset.labels[good], dataset.class_names, weights)
    OUT.print(scores_table(scores))


def predict(
    workdir: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path | None = None,
    on_bad_image: OnBadImage = "skip",
) -> int:
    """Predicts the classes of image files.

    If it is stopped or fails, the predictions until then are written or printed.

    Args:
        workdir: Folder of a finished run.
        images: Files and folders.
        out: `.csv` or `.json` file to write; without it a table is printed. An image that cannot be read has
            no class, and its reason in `error`.
        on_bad_image: `skip` predicts the other images if some cannot be read, and prints their names; the
            exit code is 0 unless no image can be read. `error` stops at the first one, with exit code 2.

    Returns:
        The exit code.
    """
    from transfer_jax.commands.output_file import check_output_file
    from transfer_jax.data.image_files import image_files
    from transfer_jax.distributed.launch import PREEMPTED
    from transfer_jax.runs.interrupt import Terminated
    from transfer_jax.runs.predict import bad_images_text, check_some_good, predict_batches, unlabelled
    from transfer_jax.weights.saved_model import SavedModel

    check_output_file(out, (".csv", ".json"))
    files, notes = image_files(images)
    for note in notes:
        print_line(CONSOLE, note)
    saved = SavedModel.describe(workdir)
    dataset = unlabelled(files, saved.class_names)
    bad, batches, failure = {}, [], None
    try:
        for batch in predict_batches(
            workdir, dataset, progress=BARS, bad=bad if on_bad_image == "skip" else None
        ):
            batches.append(batch)
    except (Exception, KeyboardInterrupt) as error:  # What is predicted is not lost.
        if not batches:
            raise
        failure = error
    if failure is None:
        check_some_good(bad, len(files))
    _show_predictions(out, dataset.names, saved.class_names, batches, bad)
    if bad:
        print_line(CONSOLE, bad_images_text(bad, len(files), "left without a class"))
    if isinstance(failure, KeyboardInterrupt):
        print_line(CONSOLE, f"Stopped after {sum(map(len, batches)):,} of {counted(len(files), 'image')}")
        return PREEMPTED if isinstance(failure, Terminated) else 130
    if failure is not None:
        raise failure
    return 0


def _show_predictions(
    out: Path | None,
    names: Sequence[str],
    class_names: Sequence[str],
    batches: "Sequence[np.ndarray]",
    bad: Mapping[int, Exception],
) -> None:
    """Writes the predictions of the first images to a file, or prints them."""
    import numpy as np

    from transfer_jax.report.predictions import write_predictions

    probabilities = np.concatenate(batches)
    names = names[: len(probabilities)]
    errors = {
        index: str(error).removeprefix(f"{names[index]}: ")
        for index, error in bad.items()
        if index < len(names)  # Later ones were read ahead.
    }
    failure = None
    if out is not None:
        try:
            write_predictions(out, names, class_names, probabilities, errors=errors)
        except OSError as error:  # Such as a full disk; the predictions are printed then.
            failure = error
        else:
            print_line(OUT, f"{counted(len(names) - len(errors), 'prediction')}: {out}")
            return
    rows = [
        [name, "", "cannot be read"]
        if index in errors
        else [name, class_names[int(row.argmax())], f"{row.max():.1%}"]
        for index, (name, row) in enumerate(zip(names, probabilities, strict=True))
    ]
    OUT.print(table("Predictions", ("image", "class", "probability"), rows))
    if failure is not None:
        raise failure


def scores_table(scores: Mapping[str, Any]) -> RenderableType:
    """Returns a table of the scores of `evaluation_metrics` by class; of many classes, the lowest scores."""
    kinds = ("precision", "recall", "f1")
    classes = [*scores["per_class"].items()]
    if hidden := max(len(classes) - _MOST_CLASSES, 0):
        evaluated = sorted((item for item in classes if item[1]["images"]), key=lambda item: item[1]["f1"])
        classes = evaluated[:_MOST_CLASSES]
        hidden = len(scores["per_class"]) - len(classes)
    rows = [
        [name, *(f"{row[kind]:.1%}" if row["images"] else "-" for kind in kinds), f"{row['images']:,}"]
        for name, row in classes
    ]
    if hidden:
        rows.append([f"… {hidden:,} more with a higher F1", "", "", "", ""])
    auc = "" if scores["roc_auc"] is None else f", ROC AUC {scores['roc_auc']:.3f}"
    weighted = f" ({scores['weighted_accuracy']:.1%} weighted)" if "weighted_accuracy" in scores else ""
    title = (
        f"Validation images: accuracy {scores['accuracy']:.1%}{weighted}, "
        f"balanced {scores['balanced_accuracy']:.1%}, macro F1 {scores['macro_f1']:.1%}{auc}"
    )
    if absent := sum(not row["images"] for row in scores["per_class"].values()):
        title += f"; {absent:,} class{'es' * (absent != 1)} without images not evaluated"
    return table(title, ("class", "precision", "recall", "F1", "images"), rows)


def _show_result(result: "Result") -> None:
    """Prints the phases, the scores and the files of a run."""
    from transfer_jax.runs.demo import COLUMNS, table_rows
    from transfer_jax.storage.remote import display_path

    OUT.print(table("Phases", COLUMNS, table_rows(result.workdir.name, result)))
    OUT.print(scores_table(result.metrics))
    print_line(OUT, _goodput_line(result.goodput))
    workdir = display_path(result.workdir)
    print_line(OUT, f"Model, predictions and freeze record: {workdir}")
    report = result.workdir / workdir_files.REPORT
    if report.exists():
        print_line(OUT, f"Report: {display_path(report)}")
    else:
        print_line(OUT, f"There is no report yet: transfer-jax report {shlex.quote(str(workdir))}")
    print_line(OUT, f"Next: transfer-jax predict {shlex.quote(str(workdir))} IMAGE ...")


def _goodput_line(goodput: dict) -> str:
    """Returns the fractions of a run's time by activity as a sentence."""
    seconds = {part.replace("_", "-"): spent for part, spent in goodput["seconds"].items()}
    total = max(sum(seconds.values()), 1e-9)
    parts = sorted(
        (part for part in seconds if seconds[part] >= 0.01 * total), key=lambda part: -seconds[part]
    )
    fractions = ", ".join(f"{part} {seconds[part] / total:.0%}" for part in parts)
    return f"Of {total:,.0f} s: {fractions}; {goodput['verdict']}"
