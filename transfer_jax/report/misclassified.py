"""The worst mistakes of a run, as small images and what was said of them."""

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
"""Pixels of the longer side, at most."""
_QUALITY = 82


def write_misclassified(
    workdir: Path,
    probabilities: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str],
    image: Callable[[int], np.ndarray],
) -> None:
    """Writes `mistakes/` into a workdir: JPEG files, and `mistakes.json` with what was said of each.

    They are the held-out images whose true class got the least probability, the worst first. A record has
    `image`, the file; `name`; `label` and `predicted`; the `probability` of that, and of the `truth`.

    Args:
        workdir: The run's folder.
        probabilities: `(images, classes)` of the held-out images.
        labels: `(images,)`, their true classes.
        names: Their names.
        class_names: Names of the classes.
        image: Gives a held-out image, uint8 `(height, width, 3)`, by its index.
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
    """The images that were taken for another class, that whose true class got the least probability first."""
    of_truth = probabilities[np.arange(len(labels)), labels]
    wrong = probabilities.argmax(-1) != labels
    return [int(index) for index in np.argsort(of_truth, kind="stable") if wrong[index]]


def _jpeg(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()
