"""Predictions of trained models for images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from transfer_jax.data import ImageDataset, image_fetch, ordered_batches
from transfer_jax.data.image_files import EXTENSIONS
from transfer_jax.models import PRE_LOGITS
from transfer_jax.models.flat_arrays import Arrays, split
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.training.evaluation import predict
from transfer_jax.training.step import Forward, make_eval_step
from transfer_jax.weights.saved_model import SavedModel


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """Returns the files among `paths`, and the images in the folders among them, those of each folder sorted.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder has no images.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if _is_image(file, path))
            if not found:
                raise FileNotFoundError(f"no images under {path} (looked for {', '.join(EXTENSIONS)})")
            files.extend(found)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"no image or folder at {path}")
    return files


def _is_image(file: Path, root: Path) -> bool:
    """Returns True if a file has the extension of an image and is not hidden, as in training."""
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.suffix.lower() in EXTENSIONS


def unlabelled(files: Sequence[Path], class_names: tuple[str, ...]) -> ImageDataset:
    """Returns a dataset of image files without known classes; all labels are 0."""
    return ImageDataset(
        read=lambda index: files[index].read_bytes(),
        labels=np.zeros(len(files), np.int32),
        names=[str(file) for file in files],
        class_names=class_names,
        fingerprint="unlabelled",
    )


def predict_dataset(
    model_dir: str | Path,
    dataset: ImageDataset,
    *,
    batch_size: int = 32,
    threads: int = 2,
    progress: Progress | None = None,
) -> np.ndarray:
    """Returns the probabilities `(images, classes)` that a trained model predicts for images.

    Args:
        model_dir: The workdir of a finished run, or its folder `model`.
        dataset: The images.
        batch_size: Images per batch.
        threads: Number of threads that read images.
        progress: Receives the number of images predicted; None reports nothing.
    """
    saved, model = SavedModel.load(Path(model_dir))
    graphdef, params, stats = split(model)
    predictor = make_predictor(saved, graphdef, dataset, batch_size=batch_size, threads=threads)
    return predictor({**params, **stats}, progress or Silent())


def make_predictor(
    saved: SavedModel,
    graphdef: nnx.GraphDef,
    dataset: ImageDataset,
    *,
    batch_size: int = 32,
    threads: int = 2,
) -> Callable[[Arrays, Progress], np.ndarray]:
    """Returns a function from a model's arrays to its probabilities `(images, classes)`, compiled once.

    Args:
        saved: Description of the model.
        graphdef: Definition of the model in inference mode.
        dataset: The images.
        batch_size: Images per batch.
        threads: Number of threads that read images.
    """
    forward = Forward(graphdef=graphdef, start=None, prefix=PRE_LOGITS, preprocessing=saved.preprocessing)
    step = jax.jit(make_eval_step(forward))
    size = min(batch_size, len(dataset))
    fetch = image_fetch(dataset, saved.preprocessing)

    def predictor(arrays: Arrays, progress: Progress) -> np.ndarray:
        progress.start("predicting", len(dataset))

        def batches():
            for batch in ordered_batches(fetch, len(dataset), batch_size=size, threads=threads):
                yield batch
                progress.advance(int(batch["mask"].sum()))

        probabilities = predict(step, arrays, batches())
        progress.finish()
        return probabilities

    return predictor


def classify(
    model_dir: str | Path, images: Sequence[str | Path], *, progress: Progress | None = None
) -> list[tuple[str, str, float]]:
    """Classifies image files.

    Args:
        model_dir: The workdir of a finished run, or its folder `model`.
        images: Files and folders.
        progress: Receives the number of images predicted; None reports nothing.

    Returns:
        For each image its path, its most probable class, and the probability of that class.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder has no images.
    """
    files = image_files(images)
    saved = SavedModel.describe(Path(model_dir))
    probabilities = predict_dataset(model_dir, unlabelled(files, saved.class_names), progress=progress)
    best = probabilities.argmax(-1)
    return [
        (str(file), saved.class_names[choice], float(row[choice]))
        for file, choice, row in zip(files, best, probabilities, strict=True)
    ]
