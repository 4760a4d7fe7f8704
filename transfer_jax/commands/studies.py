"""The commands on studies: `transfer-jax study | work`."""

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from transfer_jax.commands.config_options import Config, default_workdir
from transfer_jax.config import TrainConfig
from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, CONSOLE, OUT, print_line, table
from transfer_jax.storage import workdir_files

if TYPE_CHECKING:
    from transfer_jax.tasks import Metric

Name = Literal["unfreeze_depth", "recipes", "yosinski", "surgical", "sample_size", "seeds"]
Place = Literal["local", "slurm", "ray"]
_MOST_WORKERS = 4


def study(
    name: Annotated[Name, tyro.conf.Positional],
    config: Config,
    seeds: int = 5,
    levels: tuple[str, ...] = (),
    more_images: tuple[str, ...] = (),
    workers: int | None = None,
    on: Place = "local",
    job: tuple[str, ...] = (),
    target: float | None = None,
    keep: bool = False,
    workdir: Path | None = None,
    typed: Annotated[tuple[str, ...], tyro.conf.Suppress] = (),
) -> int:
    """Answers a question with many runs, such as how many blocks to unfreeze.

    For example, `transfer-jax study unfreeze_depth --images DIR` trains every depth with five seeds, on small
    images; `transfer-jax study NAME CONFIG` starts from a config. The runs differ in the last phase of the
    schedule. The same command resumes a study that was stopped; more seeds may be added.

    Args:
        name: The question.
        config: The config that all runs have in common.
        seeds: Number of seeds. Each seed is a split, an order and a new head, the same in all arms.
        levels: The levels to train, such as the depths 0 4 8, and the baseline; by default all.
        more_images: Other images for the same question.
        workers: Number of processes that train; by default one for each core, four at most.
        on: The place of the workers: `local`, jobs of `slurm` (needs submitit), or tasks of `ray`.
        job: Resources of each job of SLURM or Ray, as `name=value`, such as `slurm_partition=gpu` or
            `num_gpus=1`.
        target: Score whose cost is compared, such as an accuracy of 0.9; by default one a little worse than
            the best mean.
        keep: Whether to keep the models and checkpoints of all runs.
        workdir: Folder of the study; by default `runs/`, the name of the images and that of the study.
        typed: The command line, word by word.

    Returns:
        The exit code: 1 if trials failed.
    """
    from transfer_jax.distributed import processes
    from transfer_jax.extras import require
    from transfer_jax.studies.executors import starter
    from transfer_jax.studies.presets import make_study
    from transfer_jax.studies.runner import run_study

    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {seeds}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    require("pyarrow")
    folder = workdir or default_workdir(config).with_name(f"{default_workdir(config).name}-{name}")
    wanted = make_study(name, config, range(seeds), images=more_images, levels=levels)
    if not (folder / workdir_files.STUDY).exists():
        kinds = {
            source: _check_images(dataclasses.replace(config, images=source))
            for source in (config.images, *more_images)
        }
        if len({*kinds.values()}) > 1:
            found = ", ".join(f"{kind} ({source})" for source, kind in kinds.items())
            raise ValueError(f"all images of a study must have the same task, got {found}")
    command = shlex.join(typed or ("transfer-jax", "study", name))
    count = workers or min(processes.cores(), _MOST_WORKERS)
    start = starter(on, count, folder, dict(_option(text) for text in job))
    wanted = dataclasses.replace(wanted, command=command, target=target, keep=keep)
    found = run_study(wanted, folder, start, BARS, workers=count)
    _show(found, folder)
    return 1 if found["failed"] else 0


def _check_images(config: TrainConfig) -> str:
    """Prints the notes of the images, and returns their task; raises the error of their split only once."""
    from transfer_jax.runs.images import run_images, split_images

    dataset = run_images(config, BARS)
    for note in dataset.notes:
        print_line(CONSOLE, note)
    split_images(dataset, config)
    return dataset.task.kind


def work(folder: Annotated[Path, tyro.conf.Positional], name: str = "by hand") -> None:
    """Works on the trials of a study that no other worker has.

    A study starts its workers, on this machine or on a cluster. You may start more of them, on any machine
    that has the folder.

    Args:
        folder: Folder of the study.
        name: Name of this worker in the log.
    """
    from transfer_jax.studies.worker import run_worker

    print_line(CONSOLE, f"{counted(run_worker(folder, name, BARS), 'trial')} finished")


def _option(text: str) -> tuple[str, Any]:
    """Parses `name=value`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--job takes name=value, got {text!r}")
    return name, int(value) if value.isdigit() else value


def _show(found: dict[str, Any], folder: Path) -> None:
    """Prints the answer of a study."""
    from transfer_jax.tasks import task_class

    metric = task_class(found).metrics[0]
    planned = [each for each in found["comparisons"] if each["family"] == "baseline"]
    against = {(each["a"], str(each["group"])): each for each in planned}
    rows = [_row(metric, each, against.get((each["level"], str(each["group"])))) for each in found["levels"]]
    title = f"{metric.title} %" if metric.format == "percent" else metric.title
    columns = ("arm", "n", title, "95 %", "gap", "against\nbaseline", "p, Holm", "verdict")
    OUT.print(table(found["question"], columns, rows))
    for sentence in (*found["sentences"], *found["notes"]):
        print_line(OUT, sentence)
    failed = found["failed"]
    for each in failed[:5]:
        print_line(CONSOLE, f"{each['trial']} failed: {each['error']}")
    if failed:
        print_line(
            CONSOLE,
            f"{len(failed)} of {counted(found['trials'], 'trial')} failed; the same command retries them. "
            f"The logs of the workers are in {folder / workdir_files.WORKER_LOGS}",
        )
    print_line(OUT, f"Table, answer and all runs: {folder}")
    report = folder / workdir_files.REPORT
    if report.exists():
        print_line(OUT, f"Report: {report}")


def _row(metric: "Metric", level: dict[str, Any], against: dict[str, Any] | None) -> list[str]:
    """Returns the cells of an arm, with its comparison with the baseline."""
    form = (lambda x: f"{100 * x:.1f}") if metric.format == "percent" else (lambda x: f"{x:.4g}")
    score, gap = level[metric.name], level.get("overfit_gap")
    label = " ".join([level["label"], *(f"{name}={value}" for name, value in level["group"].items())])
    interval = "" if score["low"] is None else f"{form(score['low'])}-{form(score['high'])}"
    row = [label, str(level["n"]), form(score["mean"]), interval]
    row.append("" if gap is None else form(gap["mean"]))
    if against is None:
        return [*row, "", "", ""]
    difference = form(against["difference"])
    signed = difference if difference.startswith("-") else f"+{difference}"
    return [*row, signed, f"{against['p_holm']:.3g}", against["verdict"]]
