"""A trained model on disk: `weights.safetensors` and `model.json`, which are all that prediction needs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.adapters.adapter import Adapter
from transfer_jax.models.adapters.install import install, merge
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import replaced_atomically, sha256, write_text
from transfer_jax.storage.remote import local_path, pull
from transfer_jax.tasks import Task, task_from_json
from transfer_jax.weights import hub_layout
from transfer_jax.weights.base_weights import BaseWeights, without_base
from transfer_jax.weights.hub_folder import local_folder
from transfer_jax.weights.readers import CheckpointError, read_weights

_WEIGHTS, _MODEL = "weights.safetensors", "model.json"
_LAST_LAYER = "head/classifier/"
MODEL_FILES = (_MODEL, _WEIGHTS)
"""Names of the description and of the arrays that `SavedModel.save` writes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedModel:
    """The description of a trained model, without its arrays.

    Attributes:
        model: Name of the network.
        task: The task, with the classes, labels or quantities in the order of the predictions.
        preprocessing: The preprocessing of the input images.
        hidden: Widths of hidden layers in the head; `()` for a single dense layer.
        taps: Whether the head reads the outputs of all blocks.
        adapters: The adapters of the network.
        base: The pretrained weights, if the arrays on disk are those of the adapters and the head only; None
            if all arrays are on disk.
        temperature: Number by which the logits are divided for calibrated probabilities, which validation
            images chose; None if they chose none.
    """

    model: str
    task: Task
    preprocessing: Preprocessing
    hidden: tuple[int, ...] = ()
    taps: bool = False
    adapters: tuple[Adapter, ...] = ()
    base: BaseWeights | None = None
    temperature: float | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, labels or quantities, in the order of the predictions."""
        return self.task.names

    def calibrated(self) -> "SavedModel":
        """Returns the description of the model with its temperature in the head; see `load`.

        Raises:
            ValueError: If it has no temperature.
        """
        if self.temperature is None:
            raise ValueError(
                "the model has no temperature for calibrated probabilities: at least 20 validation images "
                "of classes or labels choose it at the end of a run"
            )
        task = self.task.at_temperature(self.temperature)
        return dataclasses.replace(self, task=task, temperature=None)

    def save(self, directory: Path, arrays: Mapping[str, Any]) -> None:
        """Writes the model atomically: if writing its arrays fails, an earlier model remains.

        Args:
            directory: The folder; it is created if needed.
            arrays: The parameters and statistics by path; with a `base`, those of its backbone are not
                written.

        Raises:
            OSError: If writing fails.
        """
        arrays = arrays if self.base is None else without_base(arrays)
        directory.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(directory / _WEIGHTS) as unfinished:
            try:
                save_file({path: np.asarray(array) for path, array in arrays.items()}, unfinished)
            except SafetensorError as error:
                raise OSError(f"writing {directory / _WEIGHTS} failed: {error}") from error
            described = {
                **dataclasses.asdict(self),
                "task": self.task.to_json(),
                "adapters": [each.to_json() for each in self.adapters],
                "sha256": sha256(unfinished),
            }
            (directory / _MODEL).unlink(missing_ok=True)
        write_text(directory / _MODEL, json.dumps(described, indent=1))

    @classmethod
    def describe(cls, directory: Path, *, calibrated: bool = False) -> "SavedModel":
        """Reads the description of a model, without its arrays; arguments and errors are those of `load`."""
        saved = cls._from_json(_description(_model_files(directory).description))
        return saved.calibrated() if calibrated else saved

    @classmethod
    def load(
        cls, directory: Path, *, merged: bool = True, calibrated: bool = False
    ) -> tuple["SavedModel", Classifier]:
        """Reads a model and puts it into inference mode.

        Args:
            directory: A folder that `save` wrote, the workdir of a finished run, or a folder in the layout of
                the Hugging Face hub, also as `hf://OWNER/REPO`.
            merged: Merges adapters into the weights as far as that is possible. The description then names
                the other adapters only. False leaves all as they are.
            calibrated: Divides the last layer of the head by the temperature, for calibrated probabilities.

        Raises:
            ValueError: If the model has no temperature.
            FileNotFoundError: If the folder contains no model.
            CheckpointError: If the arrays are damaged, or do not match the network, or if the model in a
                workdir is not the one that its run wrote, or if the weights that adapters were trained on
                are missing or others.
        """
        description, weights = _model_files(directory)
        described = _description(description)
        saved = cls._from_json(described)
        known = saved.calibrated() if calibrated else saved
        if not weights.is_file():
            raise FileNotFoundError(f"no trained model in {weights.parent}: there is no {weights.name}")
        # Models of the first versions have no checksum.
        if described.get("sha256") not in (None, sha256(weights)):
            raise CheckpointError(
                f"{weights} is damaged: it does not match the checksum in {description.name}; "
                "restore both files or train again"
            )
        model = create_model(
            saved.model,
            saved.task.outputs,
            hidden=saved.hidden,
            dropout=0.0,
            image_size=saved.preprocessing.image_size,
            taps=saved.taps,
            abstract_backbone=True,
            abstract_head=True,
        )
        if saved.base is not None:
            saved.base.fill(model, saved.model, saved.preprocessing.image_size)
        for adapter in saved.adapters:
            install(model, adapter)
        arrays = dict(read_weights(weights))
        _, params, stats = split(model)
        described_arrays = {**params, **stats}
        if saved.base is not None:
            described_arrays = without_base(described_arrays)
        expected = {path: value.shape for path, value in described_arrays.items()}
        found = {path: value.shape for path, value in arrays.items()}
        if expected != found:
            differing = sorted(path for path in {*expected, *found} if expected.get(path) != found.get(path))
            raise CheckpointError(
                f"{weights} does not match the network {saved.model}: {', '.join(differing[:3])}"
            )
        if calibrated and saved.temperature is not None:
            for path in (path for path in arrays if path.startswith(_LAST_LAYER)):
                arrays[path] = (arrays[path] / saved.temperature).astype(arrays[path].dtype)
        update(model, jax.device_put(arrays))
        if merged and saved.adapters:
            merge(model)
            known = dataclasses.replace(known, adapters=model.backbone.adapters, base=None)
        model.eval()
        return known, model

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> "SavedModel":
        # Models of the first versions have the classes of single labels.
        task = values.get("task") or {"kind": "single_label", "names": values["class_names"]}
        preprocessing = values["preprocessing"]
        pixels = {name: tuple(preprocessing[name]) for name in ("mean", "std")}
        return cls(
            model=values["model"],
            task=task_from_json(task),
            preprocessing=Preprocessing(**{**preprocessing, **pixels}),
            hidden=tuple(values["hidden"]),
            taps=values.get("taps", False),
            adapters=tuple(map(Adapter.from_json, values.get("adapters", ()))),
            base=BaseWeights(**values["base"]) if values.get("base") else None,
            temperature=values.get("temperature"),
        )


def model_checksum(folder: Path) -> str:
    """Returns the SHA-256 of the description of a saved model, which has that of the arrays."""
    return sha256(folder / _MODEL)


def _description(file: Path) -> dict[str, Any]:
    """Returns the content of `model.json` or of the hub's `config.json`, with all values that are needed."""
    try:
        values = json.loads(file.read_bytes())
        SavedModel._from_json(values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} is damaged ({type(error).__name__}: {error}); restore it or train again"
        ) from None
    return values


def _check_written_by_run(workdir: Path) -> None:
    """Checks that the model in a workdir is the one that its run wrote, if the run recorded its checksum.

    Raises:
        CheckpointError: If it is another one.
    """
    phases, folder = workdir / workdir_files.PHASES, workdir / workdir_files.MODEL
    try:
        recorded = json.loads(phases.read_bytes()).get("model")
    except FileNotFoundError:
        return
    except ValueError as error:
        raise CheckpointError(f"{phases} is damaged: {error}") from None
    if recorded not in (None, model_checksum(folder)):
        raise CheckpointError(
            f"{folder} is not the model that the run in {workdir} wrote: {_MODEL} does not match the "
            f"checksum in {workdir_files.PHASES}; restore it, or name {folder} to use it without the run"
        )


class _ModelFiles(NamedTuple):
    """The files of a model."""

    description: Path
    weights: Path


def _model_files(directory: Path) -> _ModelFiles:
    """Returns the local files of the model in a folder, in a workdir, or in the layout of the hub."""
    directory = local_path(local_folder(directory))
    pull(directory, skip=("features", "checkpoints"))
    if (directory / _MODEL).is_file():
        return _ModelFiles(directory / _MODEL, directory / _WEIGHTS)
    if (directory / workdir_files.MODEL / _MODEL).is_file():
        _check_written_by_run(directory)
        directory = directory / workdir_files.MODEL
        return _ModelFiles(directory / _MODEL, directory / _WEIGHTS)
    if hub_layout.is_hub_folder(directory):
        return _ModelFiles(directory / hub_layout.CONFIG, directory / hub_layout.WEIGHTS)
    raise FileNotFoundError(
        f"no trained model in {directory}: there is no {_MODEL}; give the workdir of a finished run"
    )
