"""The command `transfer-jax evaluate`: the scores of a trained model on labelled images."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from transfer_jax.commands.runs import test_title, validation_title
from transfer_jax.commands.scores_table import scores_table
from transfer_jax.config import OnBadImage, Views
from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, CONSOLE, OUT, print_line
from transfer_jax.storage import workdir_files

if TYPE_CHECKING:
    from transfer_jax.data import ImageDataset
    from transfer_jax.weights.saved_model import SavedModel


def evaluate(
    workdir: Annotated[Path, tyro.conf.Positional],
    images: str | None = None,
    views: Views = "none",
    on_bad_image: OnBadImage = "skip",
    calibrated: bool = False,
) -> None:
    """Evaluates a trained model on labelled images.

    The titles of the tables say how many images the scores are about, and how many of them the model was
    trained on.

    Args:
        workdir: Folder of a finished run.
        images: Labelled images, as for `train`; by default the validation images of the run, and its test
            images if it has some. If they have their own split, only their test images are used, or their
            validation images if there are no test images.
        views: Views of each image whose predictions are averaged, as for `predict`.
        on_bad_image: `skip` leaves an image that cannot be read out of the scores, and prints its name;
            `error` stops at it.
        calibrated: Whether to divide the logits by the temperature that the validation images of the run
            chose. The calibration error is printed with and without it in any case.
    """
    from transfer_jax.storage.remote import local_path, pull
    from transfer_jax.weights.saved_model import SavedModel

    workdir = local_path(workdir)
    pull(workdir, skip=("features",))
    saved = SavedModel.describe(workdir, calibrated=calibrated)
    parts = _parts_of_run(workdir) if images is None else _given_images(workdir, images, saved)
    for dataset, title in parts:
        _show_scores(workdir, saved, dataset, title, views, on_bad_image, calibrated)


def _parts_of_run(workdir: Path) -> "Iterator[tuple[ImageDataset, str]]":
    """Yields the validation and the test images of a run, each with a title."""
    from transfer_jax.runs.images import run_images, split_images
    from transfer_jax.runs.run_start import check_images
    from transfer_jax.runs.workdir import read_config
    from transfer_jax.training.kept_epoch import keeps_best

    if not (workdir / workdir_files.CONFIG).exists():
        raise ValueError(f"{workdir} has a model, but no images of a run: name some with --images")
    config = read_config(workdir)
    _, validation, test = split_images(run_images(config, BARS, workdir=workdir), config)
    tested = {} if test is None else {"test": test}
    check_images(workdir, config.images, {"validation": validation, **tested})
    chose = any(keeps_best(config, phase, len(validation)) for phase in config.schedule.phases)
    yield validation, validation_title(len(validation), chose=chose)
    if test is not None:
        yield test, test_title(len(test))


def _given_images(workdir: Path, images: str, saved: "SavedModel") -> "Iterator[tuple[ImageDataset, str]]":
    """Yields the images that the user names, with a title."""
    from transfer_jax.data.parts import has_own_test, split_in_parts
    from transfer_jax.data.sources import load_dataset
    from transfer_jax.data.split import has_own_split
    from transfer_jax.runs.trained_images import count_trained

    dataset, kind = load_dataset(images, least_classes=1, task=saved.task.kind), "image"
    for note in dataset.notes:
        print_line(CONSOLE, note)
    if has_own_test(dataset) or has_own_split(dataset):
        _, validation, test = split_in_parts(dataset, 0.5)  # The fraction has no effect on the part used.
        dataset, kind = (validation, "validation image") if test is None else (test, "test image")
    trained, title = count_trained(workdir, dataset), counted(len(dataset), kind)
    if trained is None:
        yield dataset, f"{title} (not known how many were trained on)"
        return
    if trained:
        print_line(
            CONSOLE,
            f"{trained:,} of these {counted(len(dataset), 'image')} "
            f"{'is a training image' if trained == 1 else 'are training images'} of the run, so the scores "
            "are too high; without --images, its validation and test images are evaluated",
        )
    yield dataset, f"{title} ({trained:,} trained on)" if trained else f"{title} (none trained on)"


def _show_scores(
    workdir: Path,
    saved: "SavedModel",
    dataset: "ImageDataset",
    title: str,
    views: Views,
    on_bad_image: OnBadImage,
    calibrated: bool,
) -> None:
    """Predicts images and prints their scores."""
    import numpy as np

    from transfer_jax.data.class_order import with_classes
    from transfer_jax.diagnostics.calibration import calibration_error
    from transfer_jax.runs.predict import bad_images_text, check_some_good, most_probable, predict_batches
    from transfer_jax.tasks.top_predictions import join_predictions

    dataset, bad = with_classes(dataset, saved.class_names), {}
    reported = bad if on_bad_image == "skip" else None
    batches = predict_batches(
        workdir, dataset, progress=BARS, bad=reported, views=views, calibrated=calibrated
    )
    predictions = join_predictions([*most_probable(batches, saved.task, dataset, labelled=True)])
    check_some_good(bad, len(dataset))
    if views != "none":
        title += f", mean of the views of {views}"
    if calibrated:
        title += ", calibrated"
    if bad:
        print_line(CONSOLE, bad_images_text(bad, len(dataset), "left out of the scores"))
        title += f", {len(bad):,} left out"
    good = np.isin(np.arange(len(dataset)), [*bad], invert=True)
    weights = None if dataset.weights is None else dataset.weights[good]
    scores = saved.task.scores(predictions[good], dataset.labels[good], weights)
    OUT.print(scores_table(scores, title))
    if saved.task.probabilistic:
        error = calibration_error(saved.task, predictions[good], dataset.labels[good], saved.temperature)
        print_line(OUT, error)
