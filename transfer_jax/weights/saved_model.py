"""A trained model on disk: `weights.safetensors` and `model.json`, which are all that prediction needs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import replaced_atomically, sha256, write_text
from transfer_jax.storage.remote import local_path, pull
from transfer_jax.weights.readers import CheckpointError, read_weights

_WEIGHTS, _MODEL = "weights.safetensors", "model.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedModel:
    """The description of a trained model, without its arrays.

    Attributes:
        model: Name of the network.
        class_names: The classes, in the order of the logits.
        preprocessing: The preprocessing of the input images.
        hidden: Widths of hidden layers in the head; `()` for a single dense layer.
        taps: Whether the head reads the outputs of all blocks.
    """

    model: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    hidden: tuple[int, ...] = ()
    taps: bool = False

    def save(self, directory: Path, arrays: Mapping[str, Any]) -> None:
        """Writes the model atomically: if writing its arrays fails, an earlier model remains.

        Args:
            directory: The folder; it is created if needed.
            arrays: The parameters and statistics by path.

        Raises:
            OSError: If writing fails.
        """
        directory.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(directory / _WEIGHTS) as unfinished:
            try:
                save_file({path: np.asarray(array) for path, array in arrays.items()}, unfinished)
            except SafetensorError as error:
                raise OSError(f"writing {directory / _WEIGHTS} failed: {error}") from error
            described = {**dataclasses.asdict(self), "sha256": sha256(unfinished)}
            (directory / _MODEL).unlink(missing_ok=True)
        write_text(directory / _MODEL, json.dumps(described, indent=1))

    @classmethod
    def describe(cls, directory: Path) -> "SavedModel":
        """Reads the description of a model, without its arrays; arguments and errors are those of `load`."""
        return cls._from_json(_description(_model_folder(directory)))

    @classmethod
    def load(cls, directory: Path) -> tuple["SavedModel", Classifier]:
        """Reads a model and puts it into inference mode.

        Args:
            directory: A folder that `save` wrote, or the workdir of a finished run.

        Raises:
            FileNotFoundError: If the folder contains no model.
            CheckpointError: If the arrays are damaged, or do not match the network, or if the model in a
                workdir is not the one that its run wrote.
        """
        directory = _model_folder(directory)
        described = _description(directory)
        saved = cls._from_json(described)
        if not (directory / _WEIGHTS).is_file():
            raise FileNotFoundError(f"no trained model in {directory}: there is no {_WEIGHTS}")
        # Models of the first versions have no checksum.
        if described.get("sha256") not in (None, sha256(directory / _WEIGHTS)):
            raise CheckpointError(
                f"{directory / _WEIGHTS} is damaged: it does not match the checksum in {_MODEL}; "
                "restore both files or train again"
            )
        model = create_model(
            saved.model,
            len(saved.class_names),
            hidden=saved.hidden,
            dropout=0.0,
            image_size=saved.preprocessing.image_size,
            taps=saved.taps,
            abstract_backbone=True,
            abstract_head=True,
        )
        arrays = dict(read_weights(directory / _WEIGHTS))
        _, params, stats = split(model)
        expected = {path: value.shape for path, value in {**params, **stats}.items()}
        found = {path: value.shape for path, value in arrays.items()}
        if expected != found:
            differing = sorted(path for path in {*expected, *found} if expected.get(path) != found.get(path))
            raise CheckpointError(
                f"{directory / _WEIGHTS} does not match the network {saved.model}: {', '.join(differing[:3])}"
            )
        update(model, jax.device_put(arrays))
        model.eval()
        return saved, model

    @classmethod
    def _from_json(cls, values: dict[str, Any]) -> "SavedModel":
        preprocessing = values["preprocessing"]
        pixels = {name: tuple(preprocessing[name]) for name in ("mean", "std")}
        return cls(
            model=values["model"],
            class_names=tuple(values["class_names"]),
            preprocessing=Preprocessing(**{**preprocessing, **pixels}),
            hidden=tuple(values["hidden"]),
            taps=values.get("taps", False),
        )


def model_checksum(folder: Path) -> str:
    """Returns the SHA-256 of the description of a saved model, which has that of the arrays."""
    return sha256(folder / _MODEL)


def _description(folder: Path) -> dict[str, Any]:
    """Returns the content of `model.json`, with all values that are needed."""
    try:
        values = json.loads((folder / _MODEL).read_bytes())
        SavedModel._from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / _MODEL} is damaged ({type(error).__name__}: {error}); restore it or train again"
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


def _model_folder(directory: Path) -> Path:
    """Returns the local folder of the model: `directory` itself, or `model` inside a workdir."""
    directory = local_path(directory)
    pull(directory, skip=("features", "checkpoints"))
    if (directory / _MODEL).is_file():
        return directory
    if (directory / workdir_files.MODEL / _MODEL).is_file():
        _check_written_by_run(directory)
        return directory / workdir_files.MODEL
    raise FileNotFoundError(
        f"no trained model in {directory}: there is no {_MODEL}; give the workdir of a finished run"
    )
