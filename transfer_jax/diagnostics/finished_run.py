"""A finished run, opened again: its images, what it began with, and what it ended with."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset
from transfer_jax.freezing.freeze_check import array_hashes
from transfer_jax.models.flat_arrays import Arrays, block_of, split
from transfer_jax.report.predictions import Predictions, read_predictions
from transfer_jax.report.progress import Progress
from transfer_jax.runs.workdir import read_config
from transfer_jax.storage import workdir_files
from transfer_jax.training.run import Run, images_of, prepare, split_images
from transfer_jax.weights.saved_model import SavedModel


class NotApplicable(ValueError):  # noqa: N818 -- often no error
    """A diagnosis that this run cannot have; says why."""


class FinishedRun:
    """A finished run; what is asked for is read then, and once.

    Args:
        workdir: The run's folder, on this machine.
        progress: Where reading reports to.
        dataset: The images of a run that was given them; None reads those of its config.

    Raises:
        FileNotFoundError: If it is no folder of a run.
    """

    def __init__(self, workdir: Path, progress: Progress, dataset: ImageDataset | None = None) -> None:
        self.workdir = workdir
        self.config: TrainConfig = dataclasses.replace(read_config(workdir), strategy="jit", fsdp=1, tensor=1)
        self.progress = progress
        self._dataset = dataset

    @property
    def predictions_file(self) -> Path:
        """What it predicted in the end, of the images held out.

        Raises:
            FileNotFoundError: If the run is not finished.
        """
        path = self.workdir / workdir_files.PREDICTIONS
        if not path.is_file():
            raise FileNotFoundError(f"the run in {self.workdir} is not finished: there is no {path.name}")
        return path

    @functools.cached_property
    def predictions(self) -> Predictions:
        """Those, read."""
        return read_predictions(self.predictions_file)

    @functools.cached_property
    def images(self) -> tuple[ImageDataset, ImageDataset]:
        """The images that it trained on, and those held out.

        Raises:
            ValueError: If they are not those of the predictions.
        """
        train, held_out = split_images(self._all_images, self.config)
        known = self.predictions
        same = list(held_out.names) == list(known.names) and held_out.class_names == known.class_names
        if not same or not np.array_equal(held_out.labels, known.labels):
            raise ValueError(
                f"{self.config.images!r} has other images or labels than when {self.workdir} was trained; "
                "bring them back first"
            )
        return train, held_out

    @functools.cached_property
    def run(self) -> Run:
        """Its network, with the arrays that it began with: pretrained or random, and a random head.

        Raises:
            ValueError: If they are not those, because other images or weights are there now.
        """
        _ = self.images  # Are checked.
        good = dataclasses.replace(self.config, on_bad_image="error")  # Bad images are left out already.
        run = prepare(good, self.workdir, self.progress, self._all_images)
        _check_start(self.workdir, run.arrays)
        return run

    @property
    def start(self) -> Arrays:
        """All arrays that it began with."""
        return self.run.arrays

    @functools.cached_property
    def end(self) -> Arrays:
        """All arrays that it ended with.

        Raises:
            FileNotFoundError: If the trained model was not kept.
        """
        _, params, stats = split(SavedModel.load(self.workdir)[1])
        return {**params, **stats}

    @functools.cached_property
    def changed(self) -> frozenset[str]:
        """The blocks whose parameters or statistics are not what they were, `head` among them."""
        start, end = self.start, self.end
        return frozenset(
            block_of(path)
            for path, array in start.items()
            if not np.array_equal(np.asarray(array), np.asarray(end[path]))
        )

    @functools.cached_property
    def boundary(self) -> str | None:
        """The last block below all that changed; None if the lowest one did."""
        names = self.run.block_names
        lowest = min((names.index(block) for block in self.changed if block in names), default=len(names))
        return names[lowest - 1] if lowest else None

    @functools.cached_property
    def _all_images(self) -> ImageDataset:
        return images_of(self.config, self.workdir, self.progress, self._dataset)


def _check_start(workdir: Path, arrays: Arrays) -> None:
    """Checks arrays against the certificate of the first phase, which has hashes of those that stayed."""
    for file in (workdir / workdir_files.FREEZE_RECORDS).glob("01-*.json"):
        content = json.loads(file.read_text())
        known = content["frozen"] if len(content["spans"]) == 1 else {}
        found = array_hashes({path: arrays[path] for path in known if path in arrays})
        if wrong := [path for path in known if found.get(path) != known[path]]:
            raise ValueError(
                f"the weights that the config in {workdir} leads to are not those that the run began with: "
                f"{wrong[0]} is another"
            )
