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
from pathlib import Path
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.planning.network import check_config, set_outputs
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress
from transfer_jax.runs import fit, soup
from transfer_jax.runs.copied_phases import copy_phases
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.search.budget.arms import MOST_RUNGS, Arm, arms_of
from transfer_jax.search.budget.clock import Clock, OutOfTimeError, time_text
from transfer_jax.search.budget.estimates import Estimates
from transfer_jax.search.budget.finish import REPORT_SECONDS, finish, seconds_to_finish
from transfer_jax.search.budget.head_trial import HeadTrial, train_heads
from transfer_jax.search.budget.image_parts import Part, part_of
from transfer_jax.search.budget.search_record import NetworkRecord, SearchRecord, TrialRecord
from transfer_jax.search.budget.trials import Trials
from transfer_jax.search.linear_probe import linear_probe
from transfer_jax.search.transferability import log_me
from transfer_jax.storage import workdir_files
from transfer_jax.storage.workdir_lock import workdir_lock
from transfer_jax.tasks import SingleLabel

_SCORING_SHARE = 0.15
"""Part of the budget for scoring networks."""
_LEAST_SCORED, _OF_EACH = 100, 5
"""Smallest number of images that networks are scored on, if there are so many, and of each class."""
_SECOND_BEST = 600.0
"""Budget in seconds from which the heads of a second network are trained."""
_SOUP = 3
"""Largest number of models in an average."""


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
        self._resolved, self._networks, self._progress = resolved, networks, progress
        task = resolved.train.task.fitted(resolved.train.labels)
        record = SearchRecord.read(workdir) or SearchRecord(budget=clock.budget)
        record.budget, record.task = clock.budget, task.to_json()
        record.command = record.command or command
        self._trials, self._record = Trials(workdir, record, clock, task, progress), record
        self._trials.reserve = REPORT_SECONDS
        self._estimates = Estimates()
        for each in record.networks:
            self._estimates.measured(each.name, each.image_size, each.seconds_per_image)

    def run(self) -> SearchRecord:
        """Searches until the time is over, then scores the test images; returns the record.

        Raises:
            ValueError: If the budget is too short for a first model.
        """
        trials, clock = self._trials, self._trials.clock
        trials.workdir.mkdir(parents=True, exist_ok=True)
        with workdir_lock(trials.workdir), clock.watched(trials.write, trials.over):
            try:
                self._search()
            except OutOfTimeError:
                self._progress.log("the time is over")
            finally:
                trials.write()
            if not self._record.best:
                raise ValueError(
                    f"a budget of {time_text(clock.budget)} is too short for a first model of "
                    f"{counted(len(self._resolved.train), 'training image')}; give more time, such as "
                    f"--budget {max(round(2 * clock.used()), 60)}s"
                )
            finish(trials, self._resolved.test)
        return self._record

    def _search(self) -> None:
        first = self._networks[0]
        images = max(_LEAST_SCORED, _OF_EACH * self._resolved.train.task.outputs)
        part = part_of(self._resolved.train, self._resolved.evaluation, images)
        self._first(first, part)
        self._trials.reserve = seconds_to_finish(
            self._trials, self._resolved.evaluation, self._resolved.test, self._estimates.slowest()
        )
        ranked = self._ranked(first, part)
        for name in ranked[: 2 if self._trials.clock.budget >= _SECOND_BEST else 1]:
            self._heads(self._with_network(name), f"heads_{name}")
        self._halving(ranked[0])
        self._average(ranked[0])

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
        features = self._trials.workdir / workdir_files.FEATURES
        return resolved.with_settings(feature_dir=str(features), score_test=False, trackers=())

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
                self._score(model, resolved, found)
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
        return self._trials.run(trial, train)

    def _score(self, name: str, resolved: ResolvedRun, trained: HeadTrial) -> None:
        """Records the score of a network's features by the training images."""
        train = resolved.train
        single = isinstance(train.task, SingleLabel)
        self._record.networks.append(
            NetworkRecord(
                name=name,
                image_size=trained.image_size,
                images=len(train),
                seconds_per_image=self._estimates.seconds_per_image(name),
                score=linear_probe(trained.features, train).scores["features"].training_score,
                log_me=log_me(trained.features, train.labels) if single else None,
            )
        )
        self._trials.write()

    def _ranked(self, first: str, part: Part) -> list[str]:
        """Returns the networks by the score of a linear model on features, the best first."""
        limit, spent = _SCORING_SHARE * self._trials.clock.budget, 0.0
        for name in self._networks[1:]:
            spent += self._estimates.heads(self._with_network(name, part)) or 0.0
            if spent > limit:
                break  # The others cost more.
            self._first(name, part)
        headline, networks = self._trials.task.headline, self._record.networks
        by_score = sorted(networks, key=lambda each: each.score, reverse=not headline.lower_is_better)
        return [each.name for each in by_score] or [first]

    def _halving(self, network: str) -> None:
        """Trains the arms of a network in rungs; the better half of a rung continues."""
        resolved = self._with_network(network)
        _, params, _ = split(resolved.network.model)
        arms = list(arms_of(network, len({block_of(path) for path in params} - {"head"})))
        for rung in range(MOST_RUNGS):
            found = {arm.trial(rung): arm for arm in arms}
            trained = [self._arm(resolved, arm, rung) for arm in arms]
            better = self._trials.best_first([each for each in trained if each and not each.undone])
            arms = [found[each.name] for each in better[: max(len(better) // 2, 1)]]

    def _arm(self, resolved: ResolvedRun, arm: Arm, rung: int) -> TrialRecord | None:
        """Trains a rung of an arm, from the end of the rung before."""
        run = resolved.with_settings(schedule=arm.schedule(rung))

        def train(folder: Path) -> tuple[dict[str, Any], bool]:
            if rung and not (folder / workdir_files.CONFIG).exists():
                copy_phases(self._trials.folder(arm.trial(rung - 1)), folder)
            result = fit(run, folder, progress=self._progress)
            return result.metrics, result.phases[-1].undone

        trial = TrialRecord(
            name=arm.trial(rung),
            kind="phases",
            network=arm.network,
            text=arm.text(rung),
            images=len(run.train),
            validation_images=len(run.evaluation),
            rung=rung,
            estimate=self._estimates.arm(run, rung),
        )
        found = self._trials.run(trial, train)
        if found is not None:
            self._estimates.observed(found)
        return found

    def _average(self, network: str) -> None:
        """Tries an average of the best models of a network that were fine-tuned from the same weights."""
        trained = [each for each in self._record.finished_trials() if each.kind == "phases"]
        trained = [each for each in trained if each.network == network and not each.undone]
        chosen = self._trials.best_first(trained)[:_SOUP]
        if len(chosen) < 2:
            return
        folders = [self._trials.folder(each.name) for each in chosen]
        evaluation, task = self._resolved.evaluation, self._trials.task

        def train(folder: Path) -> tuple[dict[str, Any], bool]:
            soup(folders, evaluation, folder / workdir_files.MODEL, progress=self._progress)
            predictions = predict_dataset(folder / workdir_files.MODEL, evaluation)
            return task.scores(predictions, evaluation.labels, evaluation.weights), False

        forward = self._estimates.seconds_per_image(network) * len(evaluation)
        trial = TrialRecord(
            name=f"average_{network}",
            kind="soup",
            network=network,
            text=f"average of {len(chosen)} models",
            images=len(self._resolved.train),
            validation_images=len(evaluation),
            estimate=2 * len(chosen) * forward,
        )
        self._trials.run(trial, train)
