"""Predictions of trained models for images."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

import jax
import numpy as np
from flax import nnx

from transfer_jax.config import OnBadImage, Views
from transfer_jax.data import BadImageError, ImageDataset, image_fetch, ordered_batches
from transfer_jax.data.image_files import image_files, read_file
from transfer_jax.data.readers import choose_readers
from transfer_jax.models import PRE_LOGITS
from transfer_jax.models.flat_arrays import Arrays, split
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.prediction_views import views_of
from transfer_jax.tasks import SingleLabel, Task
from transfer_jax.tasks.top_predictions import Predicted, TopPredictions, keeps_all
from transfer_jax.training.evaluation import predict
from transfer_jax.training.forward import Forward
from transfer_jax.training.phase_step import make_eval_step
from transfer_jax.weights.saved_model import SavedModel

BadImages = dict[int, BadImageError]
"""The errors of bad images by their positions."""
_SHOWN = 3
"""Largest number of bad images in a line."""


def unlabelled(files: Sequence[Path], task: Task) -> ImageDataset:
    """Returns a dataset of image files without known labels; all labels are 0."""
    return ImageDataset(
        read=lambda index: read_file(files[index]),
        labels=task.zeros(len(files)),
        names=[str(file) for file in files],
        class_names=task.names,
        fingerprint="unlabelled",
        task=task,
    )


def predict_dataset(
    model_dir: str | Path,
    dataset: ImageDataset,
    *,
    batch_size: int = 32,
    threads: int | None = None,
    progress: Progress | None = None,
    bad: BadImages | None = None,
    views: Views = "none",
    calibrated: bool = False,
) -> np.ndarray:
    """Returns the predictions `(images, columns)` of a trained model for images; see `Task.predictions`.

    Args:
        model_dir: The workdir of a finished run, or its folder `model`.
        dataset: The images.
        batch_size: Images per batch.
        threads: Number of threads that read images; None chooses from the cores, as training does.
        progress: Receives the number of images predicted; None reports nothing.
        bad: Receives the error of each bad image by its position; its predictions are NaN. None raises the
            first error.
        views: The views of each image that predictions are averaged over (test-time augmentation): `none`,
            `flip` (with the mirror image) or `dihedral` (all flips and quarter turns). Each view takes as
            long as the image.
        calibrated: Divides the logits by the temperature that the validation images of the run chose.

    Raises:
        BadImageError: If an image is bad and `bad` is None.
        ValueError: If there are no such views, or the model has no temperature.
    """
    options = {"batch_size": batch_size, "threads": threads, "progress": progress, "bad": bad}
    return np.concatenate(
        [*predict_batches(model_dir, dataset, **options, views=views, calibrated=calibrated)]
    )


def predict_batches(
    model_dir: str | Path,
    dataset: ImageDataset,
    *,
    batch_size: int = 32,
    threads: int | None = None,
    progress: Progress | None = None,
    bad: BadImages | None = None,
    views: Views = "none",
    calibrated: bool = False,
) -> Iterator[np.ndarray]:
    """Yields the predictions `(images, columns)` of one batch of images after the other, in order.

    A failure in a later batch does not lose the earlier ones.

    Args:
        model_dir: As for `predict_dataset`.
        dataset: As for `predict_dataset`.
        batch_size: As for `predict_dataset`.
        threads: As for `predict_dataset`.
        progress: As for `predict_dataset`.
        bad: As for `predict_dataset`.
        views: As for `predict_dataset`.
        calibrated: As for `predict_dataset`.
    """
    saved, model = SavedModel.load(Path(model_dir), calibrated=calibrated)
    graphdef, params, stats = split(model)
    options = {"batch_size": batch_size, "threads": threads, "bad": bad, "views": views}
    batches = _make_batches(saved, graphdef, dataset, **options)
    yield from batches({**params, **stats}, progress or Silent())


def most_probable(
    batches: Iterable[np.ndarray], task: Task, dataset: ImageDataset, *, labelled: bool
) -> Iterator[Predicted]:
    """Yields batches of predictions as they are; of many images and classes, their most probable classes.

    See `keeps_all` for how many are many.

    Args:
        batches: The predictions of one batch of images after the other.
        task: The task.
        dataset: The images.
        labelled: Whether the labels of the images are known.
    """
    whole, done = task.kind != SingleLabel.kind or keeps_all(len(dataset), len(task.names)), 0
    for batch in batches:
        labels = dataset.labels[done : done + len(batch)] if labelled else None
        done += len(batch)
        yield batch if whole else TopPredictions.of(batch, labels)


def make_predictor(
    saved: SavedModel,
    graphdef: nnx.GraphDef,
    dataset: ImageDataset,
    *,
    batch_size: int = 32,
    threads: int | None = None,
) -> Callable[[Arrays, Progress], np.ndarray]:
    """Returns a function from a model's arrays to its predictions `(images, columns)`, compiled once.

    Args:
        saved: Description of the model.
        graphdef: Definition of the model in inference mode.
        dataset: The images.
        batch_size: Images per batch.
        threads: Number of threads that read images; None chooses from the cores, as training does.
    """
    batches = _make_batches(saved, graphdef, dataset, batch_size=batch_size, threads=threads, bad=None)
    return lambda arrays, progress: np.concatenate([*batches(arrays, progress)])


def _make_batches(
    saved: SavedModel,
    graphdef: nnx.GraphDef,
    dataset: ImageDataset,
    *,
    batch_size: int,
    threads: int | None,
    bad: BadImages | None,
    views: Views = "none",
) -> Callable[[Arrays, Progress], Iterator[np.ndarray]]:
    """Returns a function from a model's arrays to its predictions in batches, compiled once."""
    forward = Forward(graphdef=graphdef, start=None, prefix=PRE_LOGITS, preprocessing=saved.preprocessing)
    step = jax.jit(make_eval_step(forward))
    size = min(batch_size, len(dataset))
    fetch = image_fetch(dataset.in_pieces(), saved.preprocessing, bad)
    threads = choose_readers(threads, 0).threads

    def predicted(arrays: Arrays, progress: Progress) -> Iterator[np.ndarray]:
        progress.start("predicting", len(dataset))
        done = 0
        for batch in ordered_batches(fetch, len(dataset), batch_size=size, threads=threads):
            found = [predict(step, arrays, [view], saved.task) for view in views_of(batch, views)]
            predictions = np.mean(found, axis=0)
            rows = range(done, done + len(predictions))
            predictions[[index - done for index in bad or {} if index in rows]] = np.nan
            done += len(predictions)
            progress.advance(len(predictions))
            yield predictions
        progress.finish()

    return predicted


def bad_images_text(bad: BadImages, total: int, consequence: str) -> str:
    """Returns a line that names bad images.

    Args:
        bad: The error of each bad image.
        total: The number of images.
        consequence: What follows from it, such as "left without a class".
    """
    shown = "; ".join(str(bad[index]) for index in sorted(bad)[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
    return f"Bad images: {len(bad):,} of {total:,}, {consequence}: {shown}{more}"


def check_some_good(bad: BadImages, total: int) -> None:
    """Raises `BadImageError` if all images are bad."""
    if len(bad) == total:
        raise BadImageError(f"no image can be read ({total:,} of {total:,} are bad), such as {bad[min(bad)]}")


def classify(
    model_dir: str | Path,
    images: str | Path | Iterable[str | Path],
    *,
    progress: Progress | None = None,
    on_bad_image: OnBadImage = "skip",
) -> list[tuple[str, str, float]]:
    """Classifies image files.

    Args:
        model_dir: The workdir of a finished run, or its folder `model`.
        images: Files and folders, or one of them.
        progress: Receives the number of images predicted, and the numbers of files in the folders that are
            no images; None reports nothing.
        on_bad_image: `skip` gives an image that cannot be read an empty class and the probability NaN, and
            warns of it; `error` raises an error.

    Returns:
        For each image its path, its most probable class, and the probability of that class.

    Raises:
        ValueError: If the model does not predict one class for each image; `predict_dataset` is for all.
        FileNotFoundError: If a path does not exist, or a folder has no images.
        BadImageError: If an image cannot be read and `on_bad_image` is `error`, or if no image can be read.
    """
    if on_bad_image not in get_args(OnBadImage):
        raise ValueError(f"on_bad_image must be one of {get_args(OnBadImage)}, got {on_bad_image!r}")
    files, notes = image_files(images)
    for note in notes:
        (progress or Silent()).log(note)
    task = SavedModel.describe(Path(model_dir)).task
    if not isinstance(task, SingleLabel):
        raise ValueError(
            f"the model in {model_dir} predicts {task.kind} targets, not classes; use predict_dataset"
        )
    bad: BadImages = {}
    probabilities = predict_dataset(
        model_dir,
        unlabelled(files, task),
        progress=progress,
        bad=bad if on_bad_image == "skip" else None,
    )
    check_some_good(bad, len(files))
    if bad:
        warnings.warn(bad_images_text(bad, len(files), "left without a class"), stacklevel=2)
    return [
        (str(file), "" if index in bad else answer, float(row.max()))
        for index, (file, answer, row) in enumerate(
            zip(files, task.answers(np.nan_to_num(probabilities)), probabilities, strict=True)
        )
    ]
