"""The commands about studies: `transfer-jax study | work`."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from transfer_jax.commands.config_options import Config, default_workdir
from transfer_jax.distributed import processes
from transfer_jax.report.console import BARS, CONSOLE, OUT, table
from transfer_jax.storage import workdir_files
from transfer_jax.studies.executors import Place, starter
from transfer_jax.studies.presets import make_study
from transfer_jax.studies.runner import run_study
from transfer_jax.studies.worker import run_worker

Name = Literal["unfreeze_depth", "recipes", "yosinski", "surgical", "sample_size", "seeds"]
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
) -> None:
    """Answer a question by many runs: which depth to unfreeze, which recipe, how many images.

    `transfer-jax study unfreeze_depth --images DIR` trains every depth with five seeds on small images, as
    its defaults say; `transfer-jax study NAME CONFIG` starts from an experiment. The last phase of the
    schedule is what is varied. The same command goes on where it was stopped; more seeds may be added.

    Args:
        name: The question.
        config: What all runs have in common.
        seeds: Number of seeds; each is a split, an order and a new head, the same in all arms.
        levels: The levels to train, such as the depths 0 4 8; all, if not given. The baseline always is.
        more_images: Other images to ask the same of.
        workers: Processes that train; by default one a core, four at most.
        on: Where they run: `local`, jobs of `slurm` (package submitit), or tasks of `ray` (package ray).
        job: What SLURM or Ray is asked for, as `name=value`, such as `slurm_partition=gpu` or `num_gpus=1`.
        target: Accuracy to tell the cost of; a point below the best mean, if not given.
        keep: Keep the models and checkpoints of all runs.
        workdir: Folder of the study; `runs/`, the name of the images and that of the study, if not given.
        typed: The command, word by word.
    """
    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {seeds}")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    folder = workdir or default_workdir(config).with_name(f"{default_workdir(config).name}-{name}")
    wanted = make_study(name, config, range(seeds), images=more_images, levels=levels)
    command = shlex.join(typed or ("transfer-jax", "study", name))
    count = workers or min(processes.cores(), _MOST_WORKERS)
    options = dict(_option(text) for text in job)
    start = starter(on, count, folder, options)
    wanted = dataclasses.replace(wanted, command=command, target=target, keep=keep)
    found = run_study(wanted, folder, start, BARS, workers=count)
    _show(found, folder)


def work(folder: Annotated[Path, tyro.conf.Positional], name: str = "by hand") -> None:
    """Work on the trials of a study that nobody works on; `study` starts this, on its machine or a cluster.

    May be started by hand on any machine that has the folder, as often as wanted.

    Args:
        folder: Folder of the study.
        name: What to call this worker.
    """
    count = run_worker(folder, name, BARS)
    CONSOLE.print(f"{count} trials finished")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--job wants name=value, got {text!r}")
    return name, int(value) if value.isdigit() else value


def _show(found: dict[str, Any], folder: Path) -> None:
    planned = [each for each in found["comparisons"] if each["family"] == "baseline"]
    against = {(each["a"], str(each["group"])): each for each in planned}
    rows = [_row(each, against.get((each["level"], str(each["group"])))) for each in found["levels"]]
    columns = ("arm", "n", "accuracy %", "95 %", "gap", "against\nbaseline", "p, Holm", "verdict")
    OUT.print(table(found["question"], columns, rows))
    for sentence in (*found["sentences"], *found["notes"]):
        OUT.print(sentence, highlight=False, markup=False)
    failed = found["failed"]
    for each in failed[:5]:
        CONSOLE.print(f"{each['trial']} failed: {each['error']}", markup=False)
    if failed:
        CONSOLE.print(
            f"{len(failed)} of {found['trials']} trials failed; the same command tries them again. "
            f"What workers said is in {folder / workdir_files.WORKER_LOGS}",
            markup=False,
        )
    OUT.print(f"Table, answer and all runs: {folder}", markup=False)
    report = folder / workdir_files.REPORT
    if report.exists():
        OUT.print(f"Look at it: {report}", highlight=False, markup=False, soft_wrap=True)


def _row(level: dict[str, Any], against: dict[str, Any] | None) -> list[str]:
    accuracy, gap = level["accuracy"], level.get("overfit_gap")
    label = " ".join([level["label"], *(f"{name}={value}" for name, value in level["group"].items())])
    interval = "" if accuracy["low"] is None else f"{100 * accuracy['low']:.1f}-{100 * accuracy['high']:.1f}"
    row = [label, str(level["n"]), f"{100 * accuracy['mean']:.1f}", interval]
    row.append("" if gap is None else f"{100 * gap['mean']:.1f}")
    if against is None:
        return [*row, "", "", ""]
    return [*row, f"{100 * against['difference']:+.1f}", f"{against['p_holm']:.3g}", against["verdict"]]
