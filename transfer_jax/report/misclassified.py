"""The misclassified images of a run, as small images with their predictions."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_atomically, write_text

MAX_IMAGES = 24
MAX_SIDE = 200
"""The largest length of the longer side, in pixels."""
_JPEG_QUALITY = 82


def write_misclassified(
    workdir: Path,
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
    image: Callable[[int], np.ndarray],
) -> None:
    """Writes `mistakes/` into a workdir: JPEG files, and `mistakes.json` with a record for each.

    The images are the misclassified validation images whose true class has the lowest probability, lowest
    first. A record has `image` (the file name), `name`, `label`, `predicted`, `probability` (of the predicted
    class) and `truth` (the probability of the true class).

    Args:
        workdir: The workdir of the run.
        probabilities: The probabilities of the validation images, `(images, classes)`.
        labels: The true classes of the validation images, `(images,)`.
        names: The names of the validation images.
        class_names: The names of the classes.
        image: A function that returns a validation image, uint8 `(height, width, 3)`, by its index.
    """
    folder = workdir / workdir_files.MISCLASSIFIED
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for place, index in enumerate(worst_misclassified(probabilities, labels)[:MAX_IMAGES], 1):
        content = _jpeg(image(index))
        file = f"{place:02}.jpg"
        write_atomically(folder / file, lambda out, content=content: out.write(content))
        predicted = int(probabilities[index].argmax())
        records.append(
            {
                "image": file,
                "name": names[index],
                "label": class_names[labels[index]],
                "predicted": class_names[predicted],
                "probability": round(float(probabilities[index, predicted]), 6),
                "truth": round(float(probabilities[index, labels[index]]), 6),
            }
        )
    write_text(folder / workdir_files.MISCLASSIFIED_LIST, json.dumps({"mistakes": records}, indent=1))


def worst_misclassified(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """Returns the indices of the misclassified images, lowest probability of the true class first."""
    true_probability = probabilities[np.arange(len(labels)), labels]
    wrong = probabilities.argmax(-1) != labels
    return [int(index) for index in np.argsort(true_probability, kind="stable") if wrong[index]]


def _jpeg(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()
