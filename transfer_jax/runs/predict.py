"""Trained models at work: images in, probabilities out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from transfer_jax.data import ImageDataset, image_fetch, ordered_batches
from transfer_jax.data.image_folder import EXTENSIONS
from transfer_jax.models import PRE_LOGITS
from transfer_jax.models.flat_arrays import Arrays, split
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.training.evaluation import predict
from transfer_jax.training.step import Forward, make_eval_step
from transfer_jax.weights.saved_model import SavedModel


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files among `paths`, and all images under the folders among them, sorted.

    Raises:
        FileNotFoundError: If a path is not there, or a folder holds no image.
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
    """By its extension; what is hidden is left out, as in training."""
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return not hidden and file.suffix.lower() in EXTENSIONS


def unlabelled(files: Sequence[Path], class_names: tuple[str, ...]) -> ImageDataset:
    """Image files whose classes are not known; all labels are 0."""
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
    """The probabilities `(images, classes)` that a trained model gives to images.

    Args:
        model_dir: The workdir of a finished run, or the `model` folder in it.
        dataset: The images.
        batch_size: Images in a step.
        threads: Threads that read images.
        progress: Where to report to.
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
    """From the arrays of a model to its probabilities `(images, classes)`; compiles once for all arrays.

    Args:
        saved: Its description.
        graphdef: Its definition, in inference mode.
        dataset: The images.
        batch_size: Images in a step.
        threads: Threads that read images.
    """
    forward = Forward(graphdef=graphdef, start=None, prefix=PRE_LOGITS, preprocessing=saved.preprocessing)
    step = jax.jit(make_eval_step(forward))
    size = min(batch_size, len(dataset))
    fetch = image_fetch(dataset, saved.preprocessing)

    def predictor(arrays: Arrays, progress: Progress) -> np.ndarray:
        progress.start("predicting", len(dataset))

        def watched():
            for batch in ordered_batches(fetch, len(dataset), batch_size=size, threads=threads):
                yield batch
                progress.advance(int(batch["mask"].sum()))

        probabilities = predict(step, arrays, watched())
        progress.finish()
        return probabilities

    return predictor


def classify(
    model_dir: str | Path, images: Sequence[str | Path], *, progress: Progress | None = None
) -> list[tuple[str, str, float]]:
    """Classifies image files.

    Args:
        model_dir: The workdir of a finished run, or the `model` folder in it.
        images: Files and folders.
        progress: Where to report to.

    Returns:
        For each image its path, the class, and the probability of that class.
    """
    files = image_files(images)
    saved = SavedModel.describe(Path(model_dir))
    probabilities = predict_dataset(model_dir, unlabelled(files, saved.class_names), progress=progress)
    best = probabilities.argmax(-1)
    return [
        (str(file), saved.class_names[choice], float(row[choice]))
        for file, choice, row in zip(files, best, probabilities, strict=True)
    ]
