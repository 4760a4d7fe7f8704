"""Trained models for others: a folder in the layout of the Hugging Face hub, written or uploaded."""

import dataclasses
import os
import tempfile
from pathlib import Path

import transfer_jax
from transfer_jax.models.flat_arrays import split
from transfer_jax.report.card import ModelFacts, PretrainedWeights, model_card
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.public_names import public_place
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.remote import local_path, pull
from transfer_jax.weights import hub, specs
from transfer_jax.weights.hub_layout import CARD, FILES, write_hub_folder
from transfer_jax.weights.hub_upload import repo_id, upload_files
from transfer_jax.weights.saved_model import SavedModel


def push_to_hub(
    workdir: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "",
    licence: str | None = None,
    card: bool = True,
    adapters_only: bool = False,
) -> str:
    """Uploads the model of a run to the Hugging Face hub; `from_pretrained` reads it back bit for bit.

    Uploaded are `model.safetensors`, `config.json`, `preprocessor_config.json` and the model card, in one
    commit. The token of `hf auth login` or of the variable `HF_TOKEN` is used.

    Args:
        workdir: The workdir of a finished run, or the folder of a model.
        repo: The repository, `OWNER/NAME`; it is created if it is missing.
        private: Whether a repository that is created is private.
        revision: The branch; None for `main`.
        message: The message of the commit; by default it names the network.
        licence: SPDX identifier of the licence of the model; None for that of the pretrained weights.
        card: Whether to write the model card; False keeps the `README.md` of the repository.
        adapters_only: Whether to upload the adapters and the head only, of a run that trained no more. Who
            reads them needs the pretrained weights, which are found by their name and checked by their hash.

    Returns:
        The address of the commit.

    Raises:
        FileNotFoundError: If there is no trained model.
        ValueError: If the name of the repository is invalid, or `adapters_only` needs another run.
        PermissionError: If nobody is logged in, or the user has no right to write there.
        ConnectionError: If the hub does not respond.
    """
    name = repo_id(repo)
    with tempfile.TemporaryDirectory() as folder:
        options = {"licence": licence, "card": card, "adapters_only": adapters_only}
        saved = write_folder(workdir, folder, place=f"hf://{name}", **options)
        files = [path for each in FILES if (path := Path(folder, each)).is_file()]
        text = message or f"Upload {saved.model} trained with transfer_jax"
        return upload_files(files, name, private=private, revision=revision, message=text)


def write_folder(
    workdir: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    place: str = "",
    licence: str | None = None,
    card: bool = True,
    adapters_only: bool = False,
) -> SavedModel:
    """Writes the model of a run as a folder that `push_to_hub` would upload.

    Args:
        workdir: As for `push_to_hub`.
        folder: The folder; it is created if needed. Files of the same names are replaced.
        place: The place of the model in the card, such as `hf://OWNER/NAME`; by default the folder.
        licence: As for `push_to_hub`.
        card: Whether to write the model card.
        adapters_only: As for `push_to_hub`.

    Returns:
        The description of the model.

    Raises:
        FileNotFoundError: If there is no trained model.
        ValueError: If the folder is that of a run or of its model, or `adapters_only` needs another run.
    """
    source, out = local_path(Path(workdir)), Path(folder)
    pull(source, skip=("features", "checkpoints"))
    saved, network = SavedModel.load(source, merged=not adapters_only)
    _check_out(out)
    saved = _with_public_base(saved, source) if adapters_only else dataclasses.replace(saved, base=None)
    _, params, stats = split(network)
    arrays = {**params, **stats}
    write_hub_folder(out, saved, arrays)
    if card:
        run = RunFiles.from_workdir(source) if _is_run(source) else None
        where = place or out.name
        facts = ModelFacts(
            title=where.rpartition("/")[2],
            place=where,
            model=saved.model,
            task=saved.task,
            preprocessing=saved.preprocessing,
            parameters=sum(array.size for array in arrays.values()),
            base=None if run is None else _base_weights(run, saved.model),
            licence=licence,
            version=transfer_jax.__version__,
        )
        write_text(out / CARD, model_card(facts, run))
    return saved


def _with_public_base(saved: SavedModel, source: Path) -> SavedModel:
    """Returns the description of adapters whose pretrained weights others can load.

    Raises:
        ValueError: If there are none, or their file is on this machine only.
    """
    if saved.base is None:
        raise ValueError(f"{source} trained more than adapters and a head; upload the whole model")
    name = saved.base.weights
    if Path(name).exists() or public_place(name) != name:
        raise ValueError(
            f"others lack the pretrained weights {name}, a file of yours; upload the whole model"
        )
    return dataclasses.replace(saved, base=dataclasses.replace(saved.base, file=""))


def _is_run(folder: Path) -> bool:
    return (folder / workdir_files.CONFIG).is_file() and (folder / workdir_files.PHASES).is_file()


def _check_out(out: Path) -> None:
    """Raises `ValueError` if a folder is that of a run or of its model, whose files it would replace."""
    if _is_run(out) or (out / "model.json").exists():
        raise ValueError(f"{out} is the folder of a run or of its model; choose another folder")


def _base_weights(run: RunFiles, model: str) -> PretrainedWeights | None:
    """Returns the pretrained weights that a run started with; None for random weights."""
    start = run.json(workdir_files.START)
    name = str(start.get("weights") or run.config["weights"])
    if name == "none":
        return None
    sha256 = str(start.get("sha256", ""))
    known = {spec.name: spec for spec in specs() if spec.model == model}
    if name in known:
        spec = known[name]
        return PretrainedWeights(name=name, address=spec.address, licence=spec.licence, sha256=sha256)
    if hub.is_remote(name):
        return PretrainedWeights(name=name, address=name, sha256=sha256)
    return PretrainedWeights(name=Path(name).name, sha256=sha256)
