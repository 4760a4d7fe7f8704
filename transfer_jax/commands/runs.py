"""The commands on runs and their models: `transfer-jax demo | train | launch | predict`."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from transfer_jax.commands.config_options import Config, Given, default_workdir, resumed_or_resolved_run
from transfer_jax.commands.scores_table import scores_table
from transfer_jax.config import OnBadImage, TrainConfig, Views
from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, CONSOLE, OUT, print_line, table
from transfer_jax.storage import workdir_files

if TYPE_CHECKING:
    from transfer_jax.runs.result import Result
    from transfer_jax.tasks import Task
    from transfer_jax.tasks.top_predictions import Predicted


def demo(quick: bool = False, workdir: Path | None = None, seed: int = 0) -> None:
    """Fine-tunes a real network on real photographs in three ways.

    The photographs show solar cells (ELPV), the network is EfficientNet-Lite0. Each way has a report of its
    own; the tables compare them.

    Args:
        quick: Whether to train a few epochs on small images, to see that everything works.
        workdir: Folder of the runs; by default `runs/demo`, or `runs/demo-quick`.
        seed: Seed of the split and of the training.
    """
    from transfer_jax.runs.demo import run_demo, table_columns, table_rows

    folder = workdir or Path("runs", "demo-quick" if quick else "demo")
    rows, columns = [], ()
    for name, result in run_demo(folder, quick=quick, seed=seed, progress=BARS):
        rows, columns = [*rows, *table_rows(name, result)], table_columns(result)
        scores = result.metrics
        accuracy = f"accuracy {scores['accuracy']:.1%}, balanced {scores['balanced_accuracy']:.1%}"
        print_line(OUT, f"{name}: {accuracy}; {result.workdir / workdir_files.REPORT}")
    OUT.print(table("Solar cells (ELPV), EfficientNet-Lite0", columns, rows))
    print_line(OUT, f"Models and reports: {folder}")


def train(
    config: Config,
    workdir: Path | None = None,
    force_config: bool = False,
    profile: bool = False,
    check: bool = True,
    budget: str = "",
    models: tuple[str, ...] = (),
    given: Given = None,
    typed: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> None:
    """Trains a schedule, or resumes it.

    With `--images DIR` it fine-tunes a network on a folder with one subfolder for each class. Settings that
    you leave out are chosen from the images, and printed with their reasons. Every field of the config is an
    option.

    `--schedule` takes a recipe by name with its arguments, such as `--schedule head` or
    `--schedule "five_steps(top(3), epochs=5)"`; the documentation lists all recipes.

    With a config, `transfer-jax train CONFIG`, it trains that: a Python file, the name of a shipped config,
    or the `config.json` of a run.

    With `--budget 10m`, it finds the best model that ten minutes can buy: it chooses the network among those
    whose weights are on this machine, the head, what to unfreeze and the rate. A model is ready to use at any
    moment.

    The same command resumes a run that was stopped.

    Args:
        config: The config.
        workdir: Folder of the run; by default `runs/` and the name of the images.
        force_config: Whether to resume an unfinished run with another config. It may change what affects only
            the steps to come; `earlier_configs.json` keeps the config before.
        profile: Whether to record ten steps in `profile` in the workdir, for xprof, TensorBoard or Perfetto.
        check: Whether to check all images first, as `transfer-jax check` does.
        budget: Wall time of a search for the best model, such as `90s`, `10m` or `1h30m`, from the start of
            the command; by default no search.
        models: Networks that the search chooses from.
        given: The fields that options set.
        typed: The command line, word by word.
    """
    from transfer_jax.runs import fit

    folder = workdir or default_workdir(config)
    if budget:
        _search(config, budget, folder, given, models, check, shlex.join(typed))
        return
    if models:
        raise ValueError("--models is for a search within a --budget; --model names the network of a run")
    run = resumed_or_resolved_run(config, given, folder, scan=check)
    options = {"force": force_config, "profile": profile, "command": typed}
    _show_result(fit(run, folder, progress=BARS, **options))


def _search(
    config: TrainConfig,
    budget: str,
    folder: Path,
    given: tuple[str, ...] | None,
    models: tuple[str, ...],
    check: bool,
    command: str,
) -> None:
    """Searches for the best model within a time, and prints what was tried."""
    from transfer_jax.commands.search_table import print_search
    from transfer_jax.search.budget import train_within

    if given is None:
        raise ValueError("--budget searches for the schedule: use it with --images and options, not a config")
    record = train_within(
        config,
        budget,
        folder,
        given=given,
        networks=models,
        progress=BARS,
        scan=check,
        of_process=True,
        command=command,
    )
    print_search(record, folder)


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


def predict(
    workdir: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path | None = None,
    views: Views = "none",
    on_bad_image: OnBadImage = "skip",
    calibrated: bool = False,
    also: tuple[Path, ...] = (),
) -> int:
    """Predicts the classes, labels or quantities of image files.

    If it is stopped or fails, the predictions until then are written or printed. With several runs, such as
    heads for several tasks on one network, the blocks that they have in common are computed once:
    `transfer-jax predict runs/species photos/ --also runs/sex runs/age`.

    Args:
        workdir: Folder of a finished run.
        images: Files and folders.
        out: `.csv`, `.parquet` or `.json` file to write; without it a table is printed. An image that cannot
            be read has no class, and its reason in `error`. Of more than 5,000,000 probabilities (images
            times classes), the file has the five most probable classes of each image.
        views: Views of each image whose predictions are averaged (test-time augmentation): `flip` adds the
            mirror image and takes twice the time; `dihedral`, for images without an up, has all eight flips
            and quarter turns.
        on_bad_image: `skip` predicts the other images if some cannot be read, and prints their names; the
            exit code is 0 unless no image can be read. `error` stops at the first one, with exit code 2.
        calibrated: Whether to divide the logits by the temperature that the validation images of the run
            chose, so that the confidence of predictions agrees with their accuracy.
        also: Folders of more runs. Each run has a file of its own: with `--out found.csv`, that of
            `runs/age` is `found-age.csv`.

    Returns:
        The exit code.
    """
    from transfer_jax.commands.output_file import check_output_file
    from transfer_jax.commands.predict_many import predict_with_all
    from transfer_jax.data.image_files import image_files
    from transfer_jax.distributed.launch import PREEMPTED
    from transfer_jax.runs.interrupt import Terminated
    from transfer_jax.runs.predict import (
        bad_images_text,
        check_some_good,
        most_probable,
        predict_batches,
        unlabelled,
    )
    from transfer_jax.weights.saved_model import SavedModel

    if also:
        if views != "none":
            raise ValueError("--views is for one run; leave out --also, or predict the runs one by one")
        skip = on_bad_image == "skip"
        predict_with_all((workdir, *also), images, out, skip_bad=skip, calibrated=calibrated)
        return 0
    check_output_file(out, (".csv", ".json", ".parquet"))
    files, notes = image_files(images)
    for note in notes:
        print_line(CONSOLE, note)
    saved = SavedModel.describe(workdir, calibrated=calibrated)
    dataset = unlabelled(files, saved.task)
    bad, batches, failure = {}, [], None
    options = {"bad": bad if on_bad_image == "skip" else None, "views": views, "calibrated": calibrated}
    try:
        found = predict_batches(workdir, dataset, progress=BARS, **options)
        for batch in most_probable(found, saved.task, dataset, labelled=False):
            batches.append(batch)
    except (Exception, KeyboardInterrupt) as error:  # What is predicted is not lost.
        if not batches:
            raise
        failure = error
    if failure is None:
        check_some_good(bad, len(files))
    _show_predictions(out, dataset.names, saved.task, batches, bad)
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
    task: "Task",
    batches: "Sequence[Predicted]",
    bad: Mapping[int, Exception],
) -> None:
    """Writes the predictions of the first images to a file, or prints them."""
    import numpy as np

    from transfer_jax.report.predictions import write_predictions
    from transfer_jax.tasks.top_predictions import join_predictions

    predictions = join_predictions(batches)
    names = names[: len(predictions)]
    errors = {
        index: str(error).removeprefix(f"{names[index]}: ")
        for index, error in bad.items()
        if index < len(names)  # Later ones were read ahead.
    }
    failure = None
    if out is not None:
        try:
            write_predictions(out, names, task, predictions, errors=errors)
        except OSError as error:  # Such as a full disk; the predictions are printed then.
            failure = error
        else:
            print_line(OUT, f"{counted(len(names) - len(errors), 'prediction')}: {out}")
            return
    known = np.nan_to_num(predictions) if isinstance(predictions, np.ndarray) else predictions
    found = zip(task.answers(known), task.confidences(predictions), strict=True)
    rows = [
        [name, "", "cannot be read"] if index in errors else [name, answer, confidence]
        for index, (name, (answer, confidence)) in enumerate(zip(names, found, strict=True))
    ]
    OUT.print(table("Predictions", ("image", "predicted", "probability"), rows))
    if failure is not None:
        raise failure


def validation_title(count: int, *, chose: bool) -> str:
    """Returns the title of scores of the validation images of a run.

    Args:
        count: Their number.
        chose: True if they chose the epochs that are kept.
    """
    return f"{counted(count, 'validation image')} (none trained on{'; they chose the epochs' * chose})"


def test_title(count: int) -> str:
    """Returns the title of scores of the test images of a run."""
    return f"{counted(count, 'test image')} (none trained on; they chose nothing)"


def _show_result(result: "Result") -> None:
    """Prints the phases, the scores and the files of a run."""
    from transfer_jax.runs.demo import table_columns, table_rows
    from transfer_jax.storage.remote import display_path

    OUT.print(table("Phases", table_columns(result), table_rows(result.workdir.name, result)))
    for phase in result.phases:
        if phase.choice:
            print_line(OUT, f"{phase.choice[:1].upper()}{phase.choice[1:]}")
    chose = any(phase.kept_by for phase in result.phases)
    scores = {**result.metrics, "per_class": result.class_scores}
    OUT.print(scores_table(scores, validation_title(scores["images"], chose=chose)))
    if result.test_metrics:
        scores = {**result.test_metrics, "per_class": result.test_class_scores}
        OUT.print(scores_table(scores, test_title(scores["images"])))
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
