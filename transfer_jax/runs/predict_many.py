"""Predictions of several trained models for the same images, which compute the common blocks once."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transfer_jax.data import ImageDataset, image_fetch, ordered_batches
from transfer_jax.data.readers import choose_readers
from transfer_jax.features import in_slices, model_inputs
from transfer_jax.models import Preprocessing
from transfer_jax.models.shared_trunk import SharedTrunk
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.predict import BadImages
from transfer_jax.runs.shared_program import write_shared_program
from transfer_jax.tasks import Task
from transfer_jax.training.forward import INPUTS
from transfer_jax.weights.export_record import Input
from transfer_jax.weights.program_outputs import Output
from transfer_jax.weights.saved_model import SavedModel


class TrainedModels:
    """Several trained models, such as heads or adapters for several tasks on one pretrained network.

    Models with the same preprocessing form a group. A group reads each image once, and computes the blocks
    that its models have in common once.

    Example:
        >>> models = TrainedModels(["runs/species", "runs/sex", "runs/age"])
        >>> models.groups[0].trunk.shared[-1]
        'pre_logits'

    Args:
        places: The models by name: workdirs of finished runs, or their folders `model`; or a list of them,
            whose names are those of the folders.
        calibrated: Divides the logits of each model by its temperature.

    Attributes:
        tasks: The tasks by name.
        groups: The groups.

    Raises:
        FileNotFoundError: If a folder contains no model.
        ValueError: If no model is given, two have the same name, or one has no temperature.
    """

    def __init__(
        self, places: Mapping[str, str | Path] | Sequence[str | Path], *, calibrated: bool = False
    ) -> None:
        named = _named(places)
        self.tasks: dict[str, Task] = {}
        by_input: dict[Preprocessing, dict[str, Any]] = {}
        for name, place in named.items():
            saved, model = SavedModel.load(Path(place), calibrated=calibrated)
            self.tasks[name] = saved.task
            by_input.setdefault(saved.preprocessing, {})[name] = model
        self.groups: tuple[_Group, ...] = tuple(
            _Group(each, SharedTrunk(models)) for each, models in by_input.items()
        )

    def predict(
        self,
        dataset: ImageDataset,
        *,
        batch_size: int = 32,
        threads: int | None = None,
        progress: Progress | None = None,
        bad: BadImages | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns the predictions `(images, columns)` of each model by name; see `Task.predictions`.

        Args:
            dataset: The images.
            batch_size: Images per batch.
            threads: Number of threads that read images; None chooses from the cores, as training does.
            progress: Receives the number of images predicted; None reports nothing.
            bad: Receives the error of each bad image by its position; its predictions are NaN. None raises
                the first error.

        Raises:
            BadImageError: If an image is bad and `bad` is None.
        """
        found: dict[str, np.ndarray] = {}
        for group in self.groups:
            readers = choose_readers(threads, 0)
            rows = group.outputs(dataset, batch_size, readers.threads, progress or Silent(), bad)
            outputs = [*rows]
            for name in outputs[0]:
                each = self.tasks[name].predictions(np.concatenate([batch[name] for batch in outputs]))
                each[[*(bad or {})]] = np.nan
                found[name] = each
        return {name: found[name] for name in self.tasks}

    def export(
        self, out: str | Path, *, values: Input = "float32", output: Output = "logits"
    ) -> dict[str, Any]:
        """Writes one program for all models, which computes the common blocks once.

        onnxruntime reads `*.onnx`, `jax.export.deserialize` reads `*.stablehlo`. The program maps images
        `(b, image_size, image_size, 3)` to an output `(b, outputs)` for each model, with its name, for any
        `b`. `Task.predictions` of `tasks` reads logits.

        Args:
            out: The file to write, `*.onnx` or `*.stablehlo`.
            values: The input: pixels in 0..255 as `float32` or `uint8`, or `normalized` images.
            output: The outputs: `logits` or `predictions` (probabilities, or quantities in their units).

        Returns:
            The record of the program; see `write_shared_program`.

        Raises:
            ValueError: If the models have different preprocessing, or the file has another ending.
            ImportError: If a required package is not installed.
        """
        if len(self.groups) > 1:
            sizes = ", ".join(str(group.preprocessing) for group in self.groups)
            raise ValueError(f"one program needs models with the same preprocessing, got {sizes}")
        group = next(iter(self.groups))
        options: Any = {"values": values, "output": output}
        return write_shared_program(group.trunk, group.preprocessing, self.tasks, Path(out), **options)


class _Group:
    """Models with the same preprocessing.

    Attributes:
        preprocessing: The preprocessing.
        trunk: The models as one function.
    """

    def __init__(self, preprocessing: Preprocessing, trunk: SharedTrunk) -> None:
        self.preprocessing, self.trunk = preprocessing, trunk
        self._step = jax.jit(self._outputs)

    def _outputs(self, arrays: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        return in_slices(lambda x: self.trunk(arrays, x), model_inputs(self.preprocessing, batch))

    def outputs(
        self, dataset: ImageDataset, batch_size: int, threads: int, progress: Progress, bad: BadImages | None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the outputs of the models by name, for one batch of images after the other, in order."""
        fetch, count = image_fetch(dataset.in_pieces(), self.preprocessing, bad), len(dataset)
        progress.start("predicting", count)
        for batch in ordered_batches(fetch, count, batch_size=min(batch_size, count), threads=threads):
            inputs = {name: batch[name] for name in INPUTS if name in batch}
            outputs, mask = jax.device_get(self._step(self.trunk.arrays, inputs)), np.asarray(batch["mask"])
            yield {name: np.asarray(each, np.float32)[mask] for name, each in outputs.items()}
            progress.advance(int(mask.sum()))
        progress.finish()


def _named(places: Mapping[str, str | Path] | Sequence[str | Path]) -> dict[str, str | Path]:
    """Returns the folders of models by name."""
    named: dict[str, str | Path]
    if isinstance(places, Mapping):
        named = dict(places)
    else:
        paths = [Path(place) for place in places]
        names = [(path.parent if path.name == "model" else path).absolute().name for path in paths]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models have the name {repeated[0]!r}; give a dictionary by name")
        named = {name: path for name, path in zip(names, paths, strict=True)}  # noqa: C416
    if not named:
        raise ValueError("no model is given; give at least one folder")
    return named
