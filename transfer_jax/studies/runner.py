"""The main process of a study: it starts workers, keeps the table up to date, and analyzes the results."""

import collections
import json
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.extras import optional
from transfer_jax.report.progress import Progress
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.remote import display_path
from transfer_jax.studies.analysis import analyze_study
from transfer_jax.studies.executors import Start, Worker
from transfer_jax.studies.study import Study, Trial, create_study_folder
from transfer_jax.studies.table import read_rows, write_table
from transfer_jax.studies.trial import delete_training_files
from transfer_jax.studies.worker import drop_unneeded_features, ordered_trials, record_failure, unfinished

_STOPPED_CODES = (75, 130)
_POLL_SECONDS, _GRACE_SECONDS = 0.2, 60.0
_MAX_CRASHES = 2
"""A trial whose worker process crashes this often counts as failed."""


def run_study(
    study: Study, folder: Path, start: Start, progress: Progress, *, workers: int = 1
) -> dict[str, Any]:
    """Runs the unfinished trials of a study, and writes its table, its analysis and its report.

    Trials that an earlier call finished are not repeated, an interrupted trial is resumed, and failed trials
    are tried again. Several calls on the same folder, also on different machines, divide the work.

    Args:
        study: The study.
        folder: The folder of the study.
        start: A function that starts a worker.
        progress: The receiver of progress reports.
        workers: The number of workers.

    Returns:
        The content of `answer.json`.

    Raises:
        ValueError: If the folder belongs to a run or to another study; see `create_study_folder`.
        RuntimeError: If a worker exits before it claims a trial. The message names the folder of its log.
        KeyboardInterrupt: After Ctrl-C or SIGTERM, once all workers have saved and exited.
    """
    study = create_study_folder(study, folder)
    for trial in study.trials:
        (trial.workdir(folder) / workdir_files.TRIAL_ERROR).unlink(missing_ok=True)
    results = _ResultsWatcher(study, folder, progress)
    pool = _WorkerPool(study, folder, start, min(workers, len(unfinished(study.trials, folder))))
    try:
        while pool.is_running():
            results.update()
            time.sleep(_POLL_SECONDS)
    except BaseException:
        pool.stop()
        raise
    finally:
        results.update()
        progress.finish()
    drop_unneeded_features(ordered_trials(study), folder)
    left = unfinished(study.trials, folder)
    if not left:
        for name in (workdir_files.FEATURES, workdir_files.SHARED_PHASES):
            shutil.rmtree(folder / name, ignore_errors=True)
    if not study.keep:
        for trial in study.trials:
            if trial not in left:
                delete_training_files(trial.workdir(folder))
    return write_analysis(study, folder)


def write_analysis(study: Study, folder: Path) -> dict[str, Any]:
    """Analyzes the finished trials, writes the analysis and the report, and returns the analysis."""
    analysis = analyze_study(study, read_rows(study, folder), folder)
    analysis["failed"] = failures(study, folder)
    write_text(folder / workdir_files.ANALYSIS, json.dumps(analysis, indent=1))
    again = f"`transfer-jax report {shlex.quote(str(display_path(folder)))}` makes it again."
    with optional(workdir_files.REPORT, f"The results are saved; {again}"):
        from transfer_jax.report.page.study_page import write_study_report

        write_study_report(folder)
    return analysis


def failures(study: Study, folder: Path) -> list[dict[str, str]]:
    """Returns the failed trials, each as a dictionary with `trial` and `error`."""
    paths = {trial.name: trial.workdir(folder) / workdir_files.TRIAL_ERROR for trial in study.trials}
    return [
        {"trial": name, "error": json.loads(path.read_bytes())["error"]}
        for name, path in paths.items()
        if path.exists()
    ]


class _ResultsWatcher:
    """Updates the table and the progress when trials finish."""

    def __init__(self, study: Study, folder: Path, progress: Progress) -> None:
        self._study, self._folder, self._progress = study, folder, progress
        self._finished = len(study.trials) - len(unfinished(study.trials, folder))
        progress.start("trials", len(study.trials), done=self._finished)
        self._write_table()

    def update(self) -> None:
        finished = len(self._study.trials) - len(unfinished(self._study.trials, self._folder))
        if finished != self._finished:
            self._write_table()
            self._progress.advance(finished - self._finished)
            self._finished = finished

    def _write_table(self) -> None:
        rows = read_rows(self._study, self._folder)
        if rows:
            with optional(workdir_files.TABLE, f"The rows are in {workdir_files.TRIALS}/*/row.json."):
                write_table(rows, self._folder)


class _WorkerPool:
    """The workers of a study. A worker that crashes is replaced."""

    def __init__(self, study: Study, folder: Path, start: Start, count: int) -> None:
        self._study, self._folder, self._start = study, folder, start
        self._crashes: collections.Counter[str] = collections.Counter()
        self._started = 0
        self._workers: dict[str, Worker] = {}
        (folder / workdir_files.WORKER_LOGS).mkdir(exist_ok=True)
        for _ in range(count):
            self._add()

    def _add(self) -> None:
        name = f"{os.getpid()}-{self._started}"
        log = self._folder / workdir_files.WORKER_LOGS / f"{self._started}.log"
        self._started += 1
        self._workers[name] = self._start(["work", str(self._folder.absolute()), "--name", name], log)

    def is_running(self) -> bool:
        """Replaces crashed workers, and returns whether any worker is running.

        Raises:
            RuntimeError: If a worker exited before it claimed a trial.
            KeyboardInterrupt: If a worker was stopped from outside.
        """
        for name, worker in list(self._workers.items()):
            code = worker.poll()
            if code is None:
                continue
            del self._workers[name]
            if code in _STOPPED_CODES:
                raise KeyboardInterrupt
            if code:
                self._count_crash(name, code)
                self._add()
        return bool(self._workers)

    def _count_crash(self, name: str, code: int) -> None:
        trial = next((trial for trial in self._pending() if _claimed_by(self._folder, trial) == name), None)
        if trial is None:
            logs = self._folder / workdir_files.WORKER_LOGS
            raise RuntimeError(
                f"a worker exited with code {code} before it claimed a trial; its log is in {logs}"
            )
        self._crashes[trial.name] += 1
        if self._crashes[trial.name] >= _MAX_CRASHES:
            error = f"its worker process crashed {_MAX_CRASHES} times, the last time with exit code {code}"
            record_failure(trial.workdir(self._folder), error)

    def _pending(self) -> list[Trial]:
        left = unfinished(self._study.trials, self._folder)
        return [t for t in left if not (t.workdir(self._folder) / workdir_files.TRIAL_ERROR).exists()]

    def stop(self) -> None:
        """Asks all workers to save and exit, waits for a minute, and kills those that are still running."""
        for worker in self._workers.values():
            worker.stop()
        deadline = time.monotonic() + _GRACE_SECONDS
        while any(worker.poll() is None for worker in self._workers.values()):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_SECONDS)
        for worker in self._workers.values():
            if worker.poll() is None:
                worker.kill()


def _claimed_by(folder: Path, trial: Trial) -> str | None:
    path = trial.workdir(folder) / workdir_files.TRIAL_CLAIM
    content: Mapping[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    return content.get("worker")
