"""A search for the best model within a time: networks, heads, then what to unfreeze, in rungs.

The order of the work:

1. The cheapest network and a part of the images give a first model within seconds.
2. A linear model on features of the same training images scores the other networks.
3. A sweep of heads trains on the features of all images, for the best network, and with enough time for the
   second best one.
4. Schedules of the best network train in rungs: all for a few epochs, the better half for twice as many, and
   so on (successive halving, Jamieson and Talwalkar 2016, arXiv:1502.07943). They share cached features, and
   each rung continues the one before.
5. An average of the best models (`greedy_soup`) replaces them if it is better.

The validation images choose in 3 to 5; the training images alone choose in 2. The test images choose nothing.
The best model so far is always in `model`, which is replaced atomically.
"""

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data import ImageDataset
from transfer_jax.extras import optional
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.planning.network import check_config, set_outputs
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress
from transfer_jax.runs import Result, fit, soup
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.runs.workdir import read_config
from transfer_jax.search.budget.arms import MOST_RUNGS, Arm, arms_of
from transfer_jax.search.budget.clock import Clock, OutOfTimeError, time_text
from transfer_jax.search.budget.estimates import Estimates
from transfer_jax.search.budget.head_trial import HeadTrial, train_heads
from transfer_jax.search.budget.outcome import selection_optimism
from transfer_jax.search.budget.search_record import NetworkRecord, SearchRecord, TrialRecord
from transfer_jax.search.linear_probe import linear_probe
from transfer_jax.search.transferability import log_me
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.workdir_lock import workdir_lock
from transfer_jax.tasks import Metric, SingleLabel

_SCORING_SHARE = 0.15
"""Part of the budget for scoring networks."""
_LEAST_SCORED = 100
"""Smallest number of images that networks are scored on, if there are so many."""
_SECOND_BEST = 600.0
"""Budget in seconds from which the heads of a second network are trained."""
_FEW, _REPORT_SECONDS, _SLOWER = 8, 3.0, 1.5
"""Number of images whose prediction is timed; seconds for the report; and a margin for a slower network."""
_SOUP = 3
"""Largest number of models in an average."""
Part = tuple[ImageDataset, ImageDataset]
"""Training and validation images."""
Trained = Callable[[Path], tuple[dict[str, Any], bool]]
"""A function that trains a trial in a folder, and returns its scores and whether its last phase is undone."""


class BudgetSearch:
    """A search within a time.

    Args:
        resolved: The images and the first network; its schedule is not used.
        networks: Names of the networks, the cheapest first.
        workdir: The folder of the search.
        clock: The time.
        progress: Receives the progress.
        command: The command line, which the report repeats.
    """

    def __init__(
        self,
        resolved: ResolvedRun,
        networks: tuple[str, ...],
        workdir: Path,
        clock: Clock,
        progress: Progress,
        command: str = "",
    ) -> None:
        self._resolved, self._networks, self._workdir = resolved, networks, workdir
        self._clock, self._progress = clock, progress
        self._record = SearchRecord.read(workdir) or SearchRecord(budget=clock.budget)
        self._task = resolved.train.task.fitted(resolved.train.labels)
        self._record.budget, self._record.task = clock.budget, self._task.to_json()
        self._record.command = self._record.command or command
        self._metric: Metric = self._task.objective
        self._estimates = Estimates()
        for each in self._record.networks:
            self._estimates.measured(each.name, each.image_size, each.seconds_per_image)
        self._reserve, self._writing = _REPORT_SECONDS, threading.Lock()

    def run(self) -> SearchRecord:
        """Searches until the time is over, then scores the test images; returns the record.

        Raises:
            ValueError: If the budget is too short for a first model.
        """
        self._workdir.mkdir(parents=True, exist_ok=True)
        with workdir_lock(self._workdir), self._clock.watched(self._write, self._over):
            try:
                self._search()
            except OutOfTimeError:
                self._progress.log("the time is over")
            finally:
                self._write()
            if not self._record.best:
                raise ValueError(
                    f"a budget of {time_text(self._clock.budget)} is too short for a first model of "
                    f"{counted(len(self._resolved.train), 'training image')}; give more time, such as "
                    f"--budget {max(round(2 * self._clock.used()), 60)}s"
                )
            self._finish()
        return self._record

    def _search(self) -> None:
        first = self._networks[0]
        part = self._part(max(_LEAST_SCORED, self._resolved.train.task.outputs * 5))
        self._first(first, part)
        self._measure_end()
        ranked = self._ranked(first, part)
        for name in ranked[: 2 if self._clock.budget >= _SECOND_BEST else 1]:
            self._heads(self._with_network(name), f"heads_{name}")
        self._halving(ranked[0])
        self._average(ranked[0])

    def _part(self, images: int) -> Part:
        """Returns a part of the training and the validation images, or all of them if they are few."""
        train, evaluation = self._resolved.train, self._resolved.evaluation
        if len(train) <= 2 * images:
            return train, evaluation
        return _sample(train, images), _sample(evaluation, images // 2)

    def _first(self, name: str, part: Part) -> TrialRecord | None:
        """Trains heads of a network on a part of the images, and scores its features."""
        kind = "heads" if part[0] is self._resolved.train else "first"
        return self._heads(self._with_network(name, part), f"{kind}_{name}")

    def _with_network(self, name: str, part: Part | None = None) -> ResolvedRun:
        """Returns the run with another network, and with a part of the images."""
        resolved, settings = self._resolved, {}
        if name != resolved.config.model:
            config = dataclasses.replace(resolved.config, model=name, image_size=self._image_size)
            network = check_config(config, schedule=False)
            set_outputs(network.model, resolved.train.task.outputs)
            settings = {"config": config, "network": network}
        if part is not None:
            settings |= {"train": part[0], "evaluation": part[1]}
        resolved = dataclasses.replace(resolved, test=None, **settings)
        return resolved.with_settings(
            feature_dir=str(self._workdir / workdir_files.FEATURES), score_test=False, trackers=()
        )

    @property
    def _image_size(self) -> int | None:
        """The image size that the user set; None for that of each network."""
        chosen = {choice.field for choice in self._resolved.defaults}
        return None if "image_size" in chosen else self._resolved.config.image_size

    def _heads(self, resolved: ResolvedRun, name: str) -> TrialRecord | None:
        """Trains heads on features, and scores the network by the first of these."""
        model = resolved.config.model

        def train(folder: Path) -> tuple[dict[str, Any], bool]:
            found = train_heads(resolved, folder, self._progress)
            if found.seconds_per_image:
                self._estimates.measured(model, found.image_size, found.seconds_per_image)
            if self._record.network(model) is None:
                self._score(model, resolved.train, found)
            trial.text = found.text
            return found.scores, False

        trial = TrialRecord(
            name=name,
            kind="heads",
            network=model,
            text="heads",
            images=len(resolved.train),
            validation_images=len(resolved.evaluation),
            estimate=self._estimates.heads(resolved),
        )
        return self._run_trial(trial, train)

    def _run_trial(self, trial: TrialRecord, train: Trained) -> TrialRecord | None:
        """Runs a trial unless it is finished; keeps its model if it is the best one so far.

        Returns None for a trial that failed, or that the time is too short for.
        """
        earlier = self._record.trial(trial.name)
        if earlier is not None and earlier.status in ("finished", "failed"):
            return earlier if earlier.status == "finished" else None
        left = self._clock.left(self._reserve)
        if self._record.best and trial.estimate is not None and trial.estimate > left:
            return None
        if left <= 0:
            raise OutOfTimeError
        if earlier is None:
            trial.started = self._clock.used()
            self._record.trials.append(trial)
        else:
            earlier.status, trial = "running", earlier
        self._write()
        folder = self._workdir / workdir_files.TRIALS / trial.name
        folder.mkdir(parents=True, exist_ok=True)
        time = f"{time_text(self._clock.used())} of {time_text(self._clock.budget)}"
        self._progress.log(f"{time}: {trial.network}, {trial.text}")
        try:
            with self._clock.stop_after(left):
                scores, trial.undone = train(folder)
        except (OutOfTimeError, KeyboardInterrupt):
            trial.status, trial.ended = "stopped", self._clock.used()
            self._write()
            raise
        except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
            trial.status, trial.ended, trial.error = "failed", self._clock.used(), str(error).split("\n")[0]
            self._progress.log(f"{trial.network}, {trial.text} failed: {trial.error}")
            self._write()
            return None
        trial.status, trial.ended = "finished", self._clock.used()
        trial.scores = {name: value for name, value in scores.items() if isinstance(value, (int, float))}
        if self._record.is_better(trial, self._metric):
            _point_to(self._workdir / workdir_files.MODEL, folder / workdir_files.MODEL)
            self._record.best = trial.name
            self._progress.log(f"best so far: {trial.network}, {trial.text}: {self._text(trial)}")
        self._write()
        return trial

    def _text(self, trial: TrialRecord) -> str:
        headline = self._task.headline
        images = counted(trial.validation_images, "validation image")
        return f"{headline.title} {headline.text(trial.scores.get(headline.name))} of {images}"

    def _ranked(self, first: str, part: Part) -> list[str]:
        """Returns the networks by the score of a linear model on features, the best first."""
        limit, spent = _SCORING_SHARE * self._clock.budget, 0.0
        for name in self._networks[1:]:
            spent += self._estimates.heads(self._with_network(name, part)) or 0.0
            if spent > limit:
                break  # The others cost more.
            self._first(name, part)
        scored = {each.name: each.score for each in self._record.networks}
        headline = self._task.headline
        sign = 1 if headline.lower_is_better else -1
        return sorted(scored, key=lambda name: sign * scored[name]) or [first]

    def _score(self, name: str, train: ImageDataset, trained: HeadTrial) -> None:
        found = linear_probe(trained.features, train).scores["features"]
        score = log_me(trained.features, train.labels) if isinstance(self._task, SingleLabel) else None
        self._record.networks.append(
            NetworkRecord(
                name=name,
                image_size=trained.image_size,
                images=len(train),
                seconds_per_image=self._estimates.seconds_per_image(name),
                score=found.training_score,
                log_me=score,
            )
        )
        self._write()

    def _halving(self, network: str) -> None:
        """Trains the arms of a network in rungs; the better half of a rung continues."""
        resolved = self._with_network(network)
        _, params, _ = split(resolved.network.model)
        arms = list(arms_of(network, len({block_of(path) for path in params} - {"head"})))
        for rung in range(MOST_RUNGS):
            scored: list[tuple[float, Arm]] = []
            for arm in arms:
                trial = self._arm(resolved, arm, rung)
                if trial is not None and not trial.undone:
                    scored.append((trial.scores[self._metric.name], arm))
            scored.sort(key=lambda each: each[0] if self._metric.lower_is_better else -each[0])
            arms = [arm for _, arm in scored[: max(len(scored) // 2, 1)]]
            if not arms:
                return

    def _arm(self, resolved: ResolvedRun, arm: Arm, rung: int) -> TrialRecord | None:
        """Trains a rung of an arm, from the end of the rung before."""
        run = resolved.with_settings(schedule=arm.schedule(rung))
        trials = self._workdir / workdir_files.TRIALS

        def train(folder: Path) -> tuple[dict[str, Any], bool]:
            if rung and not (folder / workdir_files.CONFIG).exists():
                _copy_phases(trials / f"{arm.name}_{rung}", folder)
            result: Result = fit(run, folder, progress=self._progress)
            return result.metrics, result.phases[-1].undone

        trial = TrialRecord(
            name=f"{arm.name}_{rung + 1}",
            kind="phases",
            network=arm.network,
            text=arm.text(rung),
            images=len(run.train),
            validation_images=len(run.evaluation),
            rung=rung,
            estimate=self._estimates.arm(run, rung),
        )
        found = self._run_trial(trial, train)
        if found is not None:
            self._estimates.observed(found)
        return found

    def _average(self, network: str) -> None:
        """Tries an average of the best models of a network that were fine-tuned from the same weights."""
        trials = [each for each in self._record.finished_trials() if each.kind == "phases"]
        trials = [each for each in trials if each.network == network and not each.undone]
        sign = 1 if self._metric.lower_is_better else -1
        trials = sorted(trials, key=lambda each: sign * each.scores[self._metric.name])[:_SOUP]
        if len(trials) < 2:
            return
        folders = [self._workdir / workdir_files.TRIALS / each.name for each in trials]
        evaluation = self._resolved.evaluation

        def train(folder: Path) -> tuple[dict[str, Any], bool]:
            soup(folders, evaluation, folder / workdir_files.MODEL, progress=self._progress)
            predictions = predict_dataset(folder / workdir_files.MODEL, evaluation)
            return self._task.scores(predictions, evaluation.labels, evaluation.weights), False

        forward = self._estimates.seconds_per_image(network) * len(evaluation)
        trial = TrialRecord(
            name=f"average_{network}",
            kind="soup",
            network=network,
            text=f"average of {len(trials)} models",
            images=len(self._resolved.train),
            validation_images=len(evaluation),
            estimate=forward * 2 * len(trials),
        )
        self._run_trial(trial, train)

    def _measure_end(self) -> None:
        """Sets the time that is kept for the test images and the report, from predictions of a few images."""
        test = 0 if self._resolved.test is None else len(self._resolved.test)
        started = self._clock.used()
        if test:
            predict_dataset(self._workdir, _sample(self._resolved.evaluation, _FEW))
        took = self._clock.used() - started
        wanted = _REPORT_SECONDS + took + _SLOWER * test * self._estimates.slowest()
        self._reserve = min(wanted, self._clock.budget / 4)

    def _finish(self) -> None:
        """Scores the test images once, with the best model; writes its config."""
        record, best = self._record, self._record.trial(self._record.best)
        assert best is not None
        trials = self._workdir / workdir_files.TRIALS
        if (trials / best.name / workdir_files.CONFIG).is_file():
            plain = dataclasses.replace(read_config(trials / best.name), feature_dir=None, score_test=True)
            write_text(self._workdir / workdir_files.BEST_CONFIG, json.dumps(plain.to_json(), indent=1))
        folders = [
            trials / each.name
            for each in record.finished_trials()
            if each.kind != "soup" and each.validation_images == best.validation_images
        ]
        record.optimism = selection_optimism(folders, self._task)
        test = self._resolved.test
        if test is not None and not record.test:
            predictions = predict_dataset(self._workdir, test, progress=self._progress)
            record.test = self._task.scores(predictions, test.labels, test.weights)
        record.finished = True
        self._write()
        with optional(workdir_files.REPORT):
            from transfer_jax.report.page.search_page import write_search_report

            write_search_report(self._workdir)

    def _over(self) -> None:
        """Records a search whose last work could not be stopped in time."""
        self._write()
        ready = "the best model is ready to use" if self._record.best else "there is no model yet"
        self._progress.log(f"the time is over; {ready}. More time continues the search")

    def _write(self) -> None:
        with self._writing:  # The thread that watches the time writes as well.
            self._record.used = self._clock.used()
            self._record.write(self._workdir)


def _sample(dataset: ImageDataset, images: int) -> ImageDataset:
    """Returns a part of a dataset with the proportions of its classes, or all of it if it is no larger."""
    if len(dataset) <= images:
        return dataset
    order = np.random.default_rng(0).permutation(len(dataset))
    strata = dataset.strata_of_labels[order]
    by_class = order[np.argsort(strata, kind="stable")]
    rows = by_class[np.linspace(0, len(order) - 1, images).astype(int)]
    return dataset.part(np.sort(rows))


def _copy_phases(source: Path, target: Path) -> None:
    """Copies the finished phases of a run, so that another one with more phases continues from them."""
    for name in (workdir_files.FREEZE_RECORDS, workdir_files.METRICS, workdir_files.CHECKPOINTS):
        if (source / name).is_dir():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(source / name, target / name)
        elif (source / name).is_file():
            shutil.copy(source / name, target / name)


def _point_to(link: Path, model: Path) -> None:
    """Makes a link to the folder of a model, in place of an earlier one, atomically."""
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(model, link.parent), target_is_directory=True)
    fresh.replace(link)
