"""A finished run, read from its workdir: its images, its arrays at the start and at the end."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset
from transfer_jax.freezing.freeze_check import array_hashes
from transfer_jax.models.flat_arrays import Arrays, split
from transfer_jax.models.paths import block_of
from transfer_jax.report.predictions import Predictions, read_predictions, stored_name
from transfer_jax.report.progress import Progress
from transfer_jax.runs.images import run_images, split_images
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.runs.run_start import RunStart, check_images, read_start
from transfer_jax.runs.workdir import read_config
from transfer_jax.storage import workdir_files
from transfer_jax.training.run import Run
from transfer_jax.weights.saved_model import SavedModel


class NotApplicable(ValueError):  # noqa: N818 -- often no error
    """The reason why a diagnostic does not apply to a run."""


class FinishedRun:
    """A finished run. Its parts are read at first access, and kept.

    Args:
        workdir: Local folder of the run.
        progress: Reporter of progress.
        dataset: Images of a run that was trained on a dataset object; None reads those of its config.

    Raises:
        FileNotFoundError: If the folder has no config.
    """

    def __init__(self, workdir: Path, progress: Progress, dataset: ImageDataset | None = None) -> None:
        self.workdir = workdir
        self.config: TrainConfig = dataclasses.replace(read_config(workdir), strategy="jit", fsdp=1, tensor=1)
        self.progress = progress
        self._dataset = dataset

    @property
    def predictions_file(self) -> Path:
        """The file with the final predictions on the validation images.

        Raises:
            FileNotFoundError: If the run is not finished.
        """
        path = workdir_files.predictions_file(self.workdir)
        if not path.is_file():
            raise FileNotFoundError(f"the run in {self.workdir} is not finished: {path.name} is missing")
        return path

    @functools.cached_property
    def predictions(self) -> Predictions:
        """The final predictions on the validation images."""
        return read_predictions(self.predictions_file)

    @functools.cached_property
    def saved(self) -> SavedModel | None:
        """The description of the trained model; None if the model is missing."""
        try:
            return SavedModel.describe(self.workdir)
        except FileNotFoundError:
            return None

    @functools.cached_property
    def images(self) -> tuple[ImageDataset, ImageDataset]:
        """The training images and the validation images.

        Raises:
            ValueError: If the images differ from those that the run started with, or the validation images or
                their labels from those of the predictions.
        """
        train, validation, _ = split_images(self._all_images, self.config)
        check_images(self.workdir, self.config.images, {"training": train, "validation": validation})
        known = self.predictions
        names, class_names = (
            [*map(stored_name, each)] for each in (validation.names, validation.class_names)
        )
        same = names == [*known.names] and class_names == [*known.class_names]
        if not same or not np.array_equal(validation.labels, known.labels):
            raise ValueError(
                f"{self.config.images!r} has different images or labels than when {self.workdir} was "
                "trained; restore them first"
            )
        return train, validation

    @functools.cached_property
    def run(self) -> Run:
        """The network with its arrays at the start: pretrained or random weights, and a random head.

        Raises:
            ValueError: If the images or the weights differ from those at the start of the run.
        """
        _ = self.images  # Checks the images.
        good = dataclasses.replace(self.config, on_bad_image="error")  # The bad images were already left out.
        run = load_network(resolve(good, workdir=self.workdir, dataset=self._all_images), self.workdir)
        if (start := read_start(self.workdir)) is not None:
            start.check(RunStart.of(run, start), self.config.images, self.workdir)
        else:
            _check_start(self.workdir, run.arrays)
        return run.at(len(run.config.schedule.phases) - 1) if self._adapted else run

    @property
    def start(self) -> Arrays:
        """All arrays at the start of the run, by path."""
        return self.run.arrays

    @functools.cached_property
    def end(self) -> Arrays:
        """All arrays at the end of the run, by path.

        Raises:
            FileNotFoundError: If the trained model is missing.
        """
        _, params, stats = split(SavedModel.load(self.workdir, merged=not self._adapted)[1])
        return {**params, **stats}

    @functools.cached_property
    def _adapted(self) -> bool:
        """True if the network has adapters that change more than its weights."""
        return not all(each.changes_weights for each in SavedModel.describe(self.workdir).adapters)

    @functools.cached_property
    def changed(self) -> frozenset[str]:
        """The names of the blocks whose parameters or statistics changed during the run, including `head`."""
        start, end = self.start, self.end
        return frozenset(
            block_of(path)
            for path, array in start.items()
            if not np.array_equal(np.asarray(array), np.asarray(end[path]))
        )

    @functools.cached_property
    def boundary(self) -> str | None:
        """The last block below all changed blocks; None if the first block changed."""
        names = self.run.block_names
        lowest = min((names.index(block) for block in self.changed if block in names), default=len(names))
        return names[lowest - 1] if lowest else None

    @functools.cached_property
    def _all_images(self) -> ImageDataset:
        return run_images(self.config, self.progress, self._dataset, workdir=self.workdir)


def _check_start(workdir: Path, arrays: Arrays) -> None:
    """Checks arrays against the freeze record of the first phase, which has hashes of the frozen arrays."""
    for file in (workdir / workdir_files.FREEZE_RECORDS).glob("01-*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        known = content["frozen"] if len(content["spans"]) == 1 else {}
        found = array_hashes({path: arrays[path] for path in known if path in arrays})
        if wrong := [path for path in known if found.get(path) != known[path]]:
            raise ValueError(
                f"the weights of the config in {workdir} differ from those at the start of the run: "
                f"{wrong[0]} differs; restore the original weights first"
            )
