"""The printed result of a search within a budget."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_jax.commands.scores_table import scores_table
from transfer_jax.counted import counted
from transfer_jax.report.console import OUT, print_line, table
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import task_class

if TYPE_CHECKING:
    from transfer_jax.search.budget import SearchRecord


def print_search(record: "SearchRecord", workdir: Path) -> None:
    """Prints the networks, the trials, the test scores and the files of a search."""
    from transfer_jax.search.budget.clock import time_text

    finished = record.finished_trials()
    best = record.trial(record.best)
    assert best is not None
    metric = task_class(best.scores).metrics[0] if "accuracy" not in best.scores else None
    name, text = ("accuracy", lambda value: f"{value:.1%}") if metric is None else (metric.name, metric.text)
    if record.networks:
        rows = [
            [each.name, text(each.score), "" if each.log_me is None else f"{each.log_me:.3f}"]
            for each in sorted(record.networks, key=lambda each: -each.score)
        ]
        title = f"Networks, by a linear model on {record.networks[0].images:,} training images"
        OUT.print(table(title, ("network", f"cross-validated {name}", "LogME"), rows))
    rows = [
        [
            "*" if each.name == record.best else "",
            each.network,
            each.text,
            f"{each.images:,}",
            text(each.scores[name]),
            f"{each.validation_images:,}",
            time_text((each.ended or 0) - each.started),
        ]
        for each in finished
    ]
    columns = ("", "network", "trained", "images", name, "validation images", "time")
    OUT.print(table(f"{counted(len(finished), 'trial')}; * is the model", columns, rows))
    if record.optimism is not None:
        gain, error = record.optimism
        print_line(
            OUT,
            f"The validation images chose the best of {len(finished)}: its {name} on them is estimated to be "
            f"{gain:+.3f} ± {error:.3f} better than on other images",
        )
    if record.test:
        title = f"{counted(record.test['images'], 'test image')} (none trained on; they chose nothing)"
        OUT.print(scores_table(record.test, title))
    print_line(OUT, f"Used {time_text(record.used)} of {time_text(record.budget)}")
    print_line(OUT, f"Model: {workdir / workdir_files.MODEL}; all trials: {workdir / workdir_files.SEARCH}")
    config = workdir / workdir_files.BEST_CONFIG
    if config.is_file():
        print_line(OUT, f"The same training without a search: transfer-jax train {shlex.quote(str(config))}")
