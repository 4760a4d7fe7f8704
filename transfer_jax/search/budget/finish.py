"""The end of a search: the optimism of its best score, the test images, the config and the report."""

import dataclasses
import json

from transfer_jax.data import ImageDataset
from transfer_jax.extras import optional
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.runs.workdir import read_config
from transfer_jax.search.budget.image_parts import sample
from transfer_jax.search.budget.optimism import selection_optimism
from transfer_jax.search.budget.trials import Trials
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text

REPORT_SECONDS = 3.0
"""Seconds that are kept for the report."""
_FEW, _SLOWER = 8, 1.5
"""Number of images whose prediction is timed, and a margin for a slower network."""


def seconds_to_finish(
    trials: Trials, validation: ImageDataset, test: ImageDataset | None, seconds_per_image: float
) -> float:
    """Returns the seconds that the end of a search takes, from timed predictions of a few validation images.

    Args:
        trials: The trials, of which one has a model.
        validation: The validation images.
        test: The test images; None if there are none.
        seconds_per_image: Seconds of the slowest network's forward pass.
    """
    if test is None:
        return REPORT_SECONDS
    started = trials.clock.used()
    if trials.record.best:
        predict_dataset(trials.workdir, sample(validation, _FEW))
    took = trials.clock.used() - started
    wanted = REPORT_SECONDS + took + _SLOWER * len(test) * seconds_per_image
    return min(wanted, trials.clock.budget / 4)


def finish(trials: Trials, test: ImageDataset | None) -> None:
    """Scores the test images once, with the best model, and writes its config and the report.

    Args:
        trials: The trials.
        test: The test images; None if there are none.
    """
    record, best = trials.record, trials.record.trial(trials.record.best)
    assert best is not None  # There is a model.
    folder, task = trials.folder(best.name), trials.task
    if (folder / workdir_files.CONFIG).is_file():
        plain = dataclasses.replace(read_config(folder), feature_dir=None, score_test=True)
        write_text(trials.workdir / workdir_files.BEST_CONFIG, json.dumps(plain.to_json(), indent=1))
    same = [each for each in record.finished_trials() if each.validation_images == best.validation_images]
    record.optimism = selection_optimism(
        [trials.folder(each.name) for each in same if each.kind != "soup"], task
    )
    if test is not None and not record.test:
        predictions = predict_dataset(trials.workdir, test, progress=trials.progress)
        record.test = task.scores(predictions, test.labels, test.weights)
    record.finished = True
    trials.write()
    with optional(workdir_files.REPORT):
        from transfer_jax.report.page.search_page import write_search_report

        write_search_report(trials.workdir)
