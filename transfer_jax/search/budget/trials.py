"""The trials of a search: each has a folder and a time, and the best one's model is in hand."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.report.progress import Progress
from transfer_jax.search.budget.clock import Clock, OutOfTimeError, time_text
from transfer_jax.search.budget.search_record import SearchRecord, Status, TrialRecord
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import Task

Train = Callable[[Path], tuple[dict[str, Any], bool]]
"""A function that trains a trial in a folder, and returns its scores and whether its last phase is undone."""


class Trials:
    """The trials of a search.

    Attributes:
        workdir: The folder of the search.
        record: Its record.
        clock: Its time.
        task: The task.
        progress: Receives the progress.
        reserve: Seconds that no trial may use.
    """

    def __init__(
        self, workdir: Path, record: SearchRecord, clock: Clock, task: Task, progress: Progress
    ) -> None:
        self.workdir, self.record, self.clock = workdir, record, clock
        self.task, self.progress = task, progress
        self.reserve = 0.0
        self._writing = threading.Lock()

    def folder(self, name: str) -> Path:
        """Returns the folder of a trial."""
        return self.workdir / workdir_files.TRIALS / name

    def run(self, trial: TrialRecord, train: Train) -> TrialRecord | None:
        """Runs a trial unless it is finished; its model is in hand afterwards if it is the best one so far.

        Args:
            trial: The trial.
            train: Trains it.

        Returns:
            The finished trial; None for one that failed, or whose estimated time is not left.

        Raises:
            OutOfTimeError: If the time is over.
        """
        earlier, left = self.record.trial(trial.name), self.clock.left(self.reserve)
        if earlier is not None and earlier.status in ("finished", "failed"):
            return earlier if earlier.status == "finished" else None
        if self.record.best and trial.estimate is not None and trial.estimate > left:
            return None
        if left <= 0:
            raise OutOfTimeError
        if earlier is None:
            trial.started = self.clock.used()
            self.record.trials.append(trial)
        else:
            earlier.status, trial = "running", earlier
        self.write()
        folder = self.folder(trial.name)
        folder.mkdir(parents=True, exist_ok=True)
        time = f"{time_text(self.clock.used())} of {time_text(self.clock.budget)}"
        self.progress.log(f"{time}: {trial.network}, {trial.text}")
        try:
            with self.clock.stop_after(left):
                scores, trial.undone = train(folder)
        except (OutOfTimeError, KeyboardInterrupt):
            self._end(trial, "stopped")
            raise
        except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
            trial.error = str(error).split("\n")[0]
            self.progress.log(f"{trial.network}, {trial.text} failed: {trial.error}")
            self._end(trial, "failed")
            return None
        trial.scores = {name: value for name, value in scores.items() if isinstance(value, (int, float))}
        if self.record.is_better(trial, self.task.objective):
            _point_to(self.workdir / workdir_files.MODEL, folder / workdir_files.MODEL)
            self.record.best = trial.name
            headline, images = self.task.headline, counted(trial.validation_images, "validation image")
            score = f"{headline.title} {headline.text(headline.of(trial.scores))} of {images}"
            self.progress.log(f"best so far: {trial.network}, {trial.text}: {score}")
        self._end(trial, "finished")
        return trial

    def best_first(self, trials: list[TrialRecord]) -> list[TrialRecord]:
        """Returns finished trials by the score that chooses."""
        metric = self.task.objective
        return sorted(trials, key=lambda each: each.scores[metric.name], reverse=not metric.lower_is_better)

    def write(self) -> None:
        """Writes the record."""
        with self._writing:  # The thread that watches the time writes as well.
            self.record.used = self.clock.used()
            self.record.write(self.workdir)

    def over(self) -> None:
        """Records a search whose last work could not be stopped in time."""
        self.write()
        ready = "the best model is ready to use" if self.record.best else "there is no model yet"
        self.progress.log(f"the time is over; {ready}. More time continues the search")

    def _end(self, trial: TrialRecord, status: Status) -> None:
        trial.status, trial.ended = status, self.clock.used()
        self.write()


def _point_to(link: Path, model: Path) -> None:
    """Makes a link to the folder of a model, in place of an earlier one, atomically."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(model, link.parent), target_is_directory=True)
    fresh.replace(link)
