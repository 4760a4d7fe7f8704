"""Runs a study: starts workers, keeps the table up to date while they work, and answers in the end."""

import collections
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.page import attempt, write_study_report
from transfer_jax.report.progress import Progress
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.studies.analysis import answer
from transfer_jax.studies.executors import Start, Worker
from transfer_jax.studies.shared_phases import SHARED_PHASES
from transfer_jax.studies.study import FEATURES, TRIALS, Study, Trial, begin
from transfer_jax.studies.table import read_rows, write_table
from transfer_jax.studies.trial import tidy
from transfer_jax.studies.worker import CLAIM, ERROR, drop_features, fail, in_order, unfinished

ANSWER, LOGS = workdir_files.ANALYSIS, "workers"
_STOPPED = (75, 130)
_POLL, _GRACE = 0.2, 60.0
_CRASHES = 2
"""How often a trial may take its worker down with it before it counts as failed."""


def run_study(
    study: Study, folder: Path, start: Start, progress: Progress, *, workers: int = 1
) -> dict[str, Any]:
    """Runs the trials of a study that are not finished, and writes its table and its answer.

    What an earlier call has finished is not repeated, what it was stopped in goes on, and what failed in it
    is tried again. Other calls on the same folder, on this machine or another, share the work.

    Args:
        study: The study.
        folder: Its folder.
        start: Starts a worker.
        progress: Where to report to.
        workers: How many.

    Returns:
        The answer, as `answer.json` has it.

    Raises:
        ValueError: As `begin`.
        RuntimeError: If a worker ends before it comes to a trial; its log is named.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once all workers have saved and ended.
    """
    begin(study, folder)
    for trial in study.trials:
        (folder / TRIALS / trial.name / ERROR).unlink(missing_ok=True)
    watch = _Watch(study, folder, progress)
    crew = _Crew(study, folder, start, min(workers, len(unfinished(study.trials, folder))))
    try:
        while crew.at_work():
            watch.look()
            time.sleep(_POLL)
    except BaseException:
        crew.dismiss()
        raise
    finally:
        watch.look()
        progress.finish()
    drop_features(in_order(study), folder)
    left = unfinished(study.trials, folder)
    if not left:
        for name in (FEATURES, SHARED_PHASES):
            shutil.rmtree(folder / name, ignore_errors=True)
    if not study.keep:
        for trial in study.trials:
            if trial not in left:
                tidy(folder / TRIALS / trial.name)
    return write_answer(study, folder)


def write_answer(study: Study, folder: Path) -> dict[str, Any]:
    """Answers from what is finished, and writes that and the report."""
    found = answer(study, read_rows(study, folder), folder)
    found["failed"] = failures(study, folder)
    write_text(folder / ANSWER, json.dumps(found, indent=1))
    attempt(write_study_report, folder)
    return found


def failures(study: Study, folder: Path) -> list[dict[str, str]]:
    """The trials that failed, each with its error."""
    paths = {trial.name: folder / TRIALS / trial.name / ERROR for trial in study.trials}
    return [
        {"trial": name, "error": json.loads(path.read_bytes())["error"]}
        for name, path in paths.items()
        if path.exists()
    ]


class _Watch:
    """Keeps the table and the progress up to date."""

    def __init__(self, study: Study, folder: Path, progress: Progress) -> None:
        self._study, self._folder, self._progress = study, folder, progress
        self._finished = len(study.trials) - len(unfinished(study.trials, folder))
        progress.start("trials", len(study.trials), done=self._finished)
        self._write()

    def look(self) -> None:
        finished = len(self._study.trials) - len(unfinished(self._study.trials, self._folder))
        if finished != self._finished:
            self._write()
            self._progress.advance(finished - self._finished)
            self._finished = finished

    def _write(self) -> None:
        rows = read_rows(self._study, self._folder)
        if rows:
            write_table(rows, self._folder)


class _Crew:
    """The workers, of which one that dies is replaced."""

    def __init__(self, study: Study, folder: Path, start: Start, count: int) -> None:
        self._study, self._folder, self._start = study, folder, start
        self._crashes: collections.Counter[str] = collections.Counter()
        self._number = 0
        self._workers: dict[str, Worker] = {}
        (folder / LOGS).mkdir(exist_ok=True)
        for _ in range(count):
            self._add()

    def _add(self) -> None:
        name = f"{os.getpid()}-{self._number}"
        log = self._folder / LOGS / f"{self._number}.log"
        self._number += 1
        self._workers[name] = self._start(["work", str(self._folder.absolute()), "--name", name], log)

    def at_work(self) -> bool:
        """Whether any worker works; those that died are replaced.

        Raises:
            RuntimeError: If one ended before it came to a trial.
            KeyboardInterrupt: If one was told to stop by somebody else.
        """
        for name, worker in list(self._workers.items()):
            code = worker.poll()
            if code is None:
                continue
            del self._workers[name]
            if code in _STOPPED:
                raise KeyboardInterrupt
            if code:
                self._crashed(name, code)
                self._add()
        return bool(self._workers)

    def _crashed(self, name: str, code: int) -> None:
        trial = next((trial for trial in self._left() if _claim(self._folder, trial) == name), None)
        if trial is None:
            raise RuntimeError(f"a worker ended with {code}; what it said is in {self._folder / LOGS}")
        self._crashes[trial.name] += 1
        if self._crashes[trial.name] >= _CRASHES:
            error = f"its process died {_CRASHES} times, with {code} at last"
            fail(self._folder / TRIALS / trial.name, error)

    def _left(self) -> list[Trial]:
        left = unfinished(self._study.trials, self._folder)
        return [trial for trial in left if not (self._folder / TRIALS / trial.name / ERROR).exists()]

    def dismiss(self) -> None:
        """Tells all workers to save and end, and waits for them; for so long, then kills them."""
        for worker in self._workers.values():
            worker.stop()
        deadline = time.monotonic() + _GRACE
        while any(worker.poll() is None for worker in self._workers.values()):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL)
        for worker in self._workers.values():
            if worker.poll() is None:
                worker.kill()


def _claim(folder: Path, trial: Trial) -> str | None:
    path = folder / TRIALS / trial.name / CLAIM
    content: Mapping[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    return content.get("worker")
