"""Trained models in memory: `from_pretrained`, predictions for images of any kind."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transfer_jax.data import BadImageError, eval_transform
from transfer_jax.data.image_files import read_file
from transfer_jax.data.source_image import SourceImage
from transfer_jax.models import PRE_LOGITS, Preprocessing
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import Arrays, split
from transfer_jax.tasks import Task
from transfer_jax.training.forward import Forward
from transfer_jax.training.phase_step import make_eval_step
from transfer_jax.weights.saved_model import SavedModel

Picture = str | os.PathLike[str] | bytes | np.ndarray
"""An image: the path of a file, the contents of a file, or uint8 pixels `(height, width[, 3])`."""


def from_pretrained(place: str | os.PathLike[str], *, calibrated: bool = False) -> "TrainedModel":
    """Loads a trained model.

    Example:
        >>> model = from_pretrained("hf://ann/photos")
        >>> model.answers(["cat.jpg", "dog.jpg"])
        ['cat', 'dog']

    Args:
        place: `hf://OWNER/REPO` or `hf://OWNER/REPO@REVISION` on the Hugging Face hub, a folder that
            `push_to_hub` wrote, or the workdir of a finished run.
        calibrated: Divides the logits by the temperature that the validation images of the run chose.

    Returns:
        The model, in inference mode.

    Raises:
        FileNotFoundError: If there is no such repository or folder, or it has no model of this package.
        ConnectionError: If the hub does not respond and the repository is not on this machine.
        CheckpointError: If the model is damaged.
        ValueError: If the address is malformed, the model has no temperature, or the network is unknown here:
            register it first.
    """
    saved, network = SavedModel.load(Path(place), calibrated=calibrated)
    return TrainedModel(saved, network)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model and its description.

    Attributes:
        saved: The description: name of the network, task, preprocessing, head.
        network: The network, in inference mode.
    """

    saved: SavedModel
    network: Classifier

    @property
    def task(self) -> Task:
        """The task, with the classes, labels or quantities."""
        return self.saved.task

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the input images."""
        return self.saved.preprocessing

    def predict(self, images: Picture | Iterable[Picture], *, batch_size: int = 32) -> np.ndarray:
        """Returns the predictions of images, `(images, columns)`: probabilities, or quantities in units.

        Args:
            images: Images, or one of them; `Picture` describes them.
            batch_size: Largest number of images that are computed at once.

        Raises:
            BadImageError: If an image is bad; the message names it.
            OSError: If a file cannot be read.
        """
        one = isinstance(images, str | os.PathLike | bytes) or (
            isinstance(images, np.ndarray) and images.ndim < 4
        )
        pictures: list[Any] = [images] if one else list(images)  # pyright: ignore[reportArgumentType]
        if not pictures:
            raise ValueError("no image is given; give paths, contents of files, or arrays of pixels")
        size = min(batch_size, len(pictures))
        return self.task.predictions(np.concatenate([*self._batches(pictures, size)]))

    def answers(self, images: Picture | Iterable[Picture], *, batch_size: int = 32) -> list[str]:
        """Returns the answer for each image as text, such as the most probable class; see `predict`."""
        return self.task.answers(self.predict(images, batch_size=batch_size))

    def pixels(self, content: bytes | np.ndarray, name: str) -> np.ndarray:
        """Returns an image as the network needs it, uint8 `(image_size, image_size, 3)`.

        Args:
            content: The contents of a file, or uint8 pixels `(height, width[, 3])`.
            name: Name of the image in error messages.

        Raises:
            BadImageError: If the image is bad.
        """
        try:
            return eval_transform(SourceImage(content, name), self.preprocessing)
        except (TypeError, ValueError) as error:
            if isinstance(error, BadImageError):
                raise
            raise BadImageError(f"{name}: not the pixels of an image ({error})") from error

    def outputs(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the outputs of the head, float32 `(images, outputs)`; `Task.predictions` reads them.

        Each number of images is a program of its own, which is compiled when it is first used.

        Args:
            pixels: uint8 `(images, image_size, image_size, 3)`, as `pixels` returns them.
        """
        step, arrays = self._program
        return np.asarray(jax.device_get(step(arrays, {"image": pixels})))

    @functools.cached_property
    def _program(self) -> tuple[Callable[[Arrays, Any], jax.Array], Arrays]:
        """The compiled forward pass, and its arrays."""
        graphdef, params, stats = split(self.network)
        forward = Forward(
            graphdef=graphdef, start=None, prefix=PRE_LOGITS, preprocessing=self.saved.preprocessing
        )
        return jax.jit(make_eval_step(forward)), {**params, **stats}

    def _batches(self, pictures: list[Picture], size: int) -> Iterator[np.ndarray]:
        """Yields the outputs of one batch after the other; the last one is filled with its last image."""
        with ThreadPoolExecutor(2) as pool:
            for first in range(0, len(pictures), size):
                chosen = pictures[first : first + size]
                numbers = range(first, first + len(chosen))
                found = [*pool.map(self._read, chosen, numbers)]
                filled = np.stack(found + found[-1:] * (size - len(found)))
                yield self.outputs(filled)[: len(found)]

    def _read(self, picture: Picture, number: int) -> np.ndarray:
        if isinstance(picture, str | os.PathLike):
            return self.pixels(read_file(picture), os.fspath(picture))
        return self.pixels(picture, f"image {number}")
