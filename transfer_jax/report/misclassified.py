"""The images of a run with the largest errors, as small images with their predictions."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfer_jax.report.predictions import Predictions
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_atomically, write_text

MAX_IMAGES = 24
MAX_SIDE = 200
"""The largest length of the longer side, in pixels."""
_JPEG_QUALITY = 82


def write_misclassified(workdir: Path, predictions: Predictions, image: Callable[[int], np.ndarray]) -> None:
    """Writes `mistakes/` into a workdir: JPEG files, and `mistakes.json` with a record for each.

    The images are the misclassified validation images whose true class has the lowest probability, lowest
    first; for other tasks see `Task.worst`. A record has `image` (the file name), `name`, `label`,
    `predicted`, and `probability` (of the predicted class) and `truth` (the probability of the true class),
    or a `note` about the error.

    Args:
        workdir: The workdir of the run.
        predictions: The predictions of the validation images.
        image: A function that returns a validation image, uint8 `(height, width, 3)`, by its index.
    """
    folder = workdir / workdir_files.MISCLASSIFIED
    folder.mkdir(parents=True, exist_ok=True)
    records = _records(predictions)
    for index, record in records.items():
        content = _jpeg(image(index))
        write_atomically(folder / record["image"], lambda out, content=content: out.write(content))
    text = json.dumps({"mistakes": list(records.values())}, indent=1)
    write_text(folder / workdir_files.MISCLASSIFIED_LIST, text)


def has_misclassified(workdir: Path, predictions: Predictions) -> bool:
    """Returns whether a workdir has all files that `write_misclassified` writes for some predictions."""
    folder, records = workdir / workdir_files.MISCLASSIFIED, list(_records(predictions).values())
    try:
        found = json.loads((folder / workdir_files.MISCLASSIFIED_LIST).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return found == {"mistakes": records} and all((folder / each["image"]).is_file() for each in records)


def _records(predictions: Predictions) -> dict[int, dict[str, Any]]:
    """Returns the records of the images to write, by the index of the image."""
    task, values, labels = predictions.task, predictions.values, predictions.labels
    worst = task.worst(values, labels)[:MAX_IMAGES]
    texts, answers = task.label_texts(labels[worst]), task.answers(values[worst])
    records = {}
    for place, index in enumerate(worst):
        records[index] = {
            "image": f"{place + 1:02}.jpg",
            "name": predictions.names[index],
            "label": texts[place],
            "predicted": answers[place],
            **task.error(values[index], labels[index]),
        }
    return records


def _jpeg(pixels: np.ndarray) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_JPEG_QUALITY)
    return content.getvalue()
