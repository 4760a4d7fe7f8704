"""The ELPV dataset of functional and defective solar cells."""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.targets import make_targets
from transfer_jax.data.tfds import default_data_dir
from transfer_jax.data.tfds_records import open_records
from transfer_jax.tasks import SingleLabel

TARGETS = ("any", "likely", "sure", "confidence", "probability", "labels")
"""The definitions of a defective cell; see `from_elpv`."""
CLASS_NAMES = ("functional", "defective")
SILICON = ("mono", "poly")

_UNFINISHED = ".elpv-unfinished-"
_ABANDONED_SECONDS = 3600.0


def from_elpv(target: str = "any", data_dir: str | os.PathLike[str] | None = None) -> ImageDataset:
    """Returns the ELPV solar cells (Deitsch et al. 2019, Solar Energy 185), labelled functional or defective.

    On first use the images of the package `elpv-dataset` are written to `data_dir` as record files (90 MB, a
    few seconds).

    Args:
        target: Definition of a defective cell. `any`: defect probability above 0. `likely`: at least 0.5.
            `sure`: probability 1; only cells with the probabilities 0 and 1 are kept. `confidence`: as `any`,
            with the probability as the weight of defective cells and 1 as that of functional ones.
            `probability`: the defect probability as a number (0, 1/3, 2/3 or 1), for regression. `labels`:
            the labels `defective` and `mono`, any of which a cell may have.
        data_dir: Folder of the record files; None for `default_data_dir()`.

    Returns:
        2,624 images (2,223 for `sure`) in the order of the package's table. The strata are the eight
        combinations of probability and type of silicon; the groups are the types, `mono` and `poly`.

    Raises:
        ValueError: If there is no such target.
        ModuleNotFoundError: If the record files do not exist and the package is not installed.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
    records = open_records(prepare_elpv(data_dir), "train")
    columns = records.columns("probability", "type", "name")
    probability = np.asarray(columns["probability"])
    silicon = np.asarray(columns["type"], dtype=np.int32)
    defective = probability >= 0.5 if target == "likely" else probability > 0
    task, labels = SingleLabel(CLASS_NAMES), defective.astype(np.int32)
    if target == "probability":
        labels, task = make_targets(probability, "regression", ["probability"])
    elif target == "labels":
        labels, task = make_targets(
            np.stack([defective, silicon == 0], 1), "multi_label", ["defective", SILICON[0]]
        )
    dataset = ImageDataset(
        read=records.reader("image"),
        labels=labels,
        names=[name.decode() for name in columns["name"]],
        class_names=task.names,
        task=task,
        fingerprint=hashlib.sha256(f"{records.fingerprint} {target}".encode()).hexdigest(),
        strata=np.rint(probability * 3).astype(np.int32) * 2 + silicon,
        weights=_confidence(probability) if target == "confidence" else None,
        groups=np.asarray(SILICON)[silicon],
    )
    return (
        dataset.subset(np.flatnonzero((probability == 0) | (probability == 1)))
        if target == "sure"
        else dataset
    )


def _confidence(probability: np.ndarray) -> np.ndarray:
    return np.where(probability > 0, probability, 1.0).astype(np.float32)


def prepare_elpv(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Writes the record files of ELPV if they do not exist.

    The files are written to a temporary folder, which is renamed when it is complete. Several processes may
    do this at the same time, and an interrupted one leaves no incomplete dataset.

    Args:
        data_dir: Folder of the record files; None for `default_data_dir()`.

    Returns:
        The folder of the prepared version.

    Raises:
        ModuleNotFoundError: If the files do not exist and the package `elpv-dataset` is not installed.
    """
    from transfer_jax.data import elpv_builder  # Imports tensorflow-datasets.

    root = Path(data_dir or default_data_dir()).expanduser()
    final = root / "elpv" / str(elpv_builder.Elpv.VERSION)
    if final.is_dir():
        return final
    elpv_builder.package_folder()  # Raises early, with a clear message, if the package is not installed.
    final.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in root.glob(f"{_UNFINISHED}*"):
        if time.time() - abandoned.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=root) as unfinished:
        builder = elpv_builder.Elpv(data_dir=unfinished, file_format="array_record")
        # tensorflow-datasets prints text and a progress bar.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            builder.download_and_prepare()
        try:
            os.rename(builder.data_path, final)
        except OSError:
            if not final.is_dir():  # Otherwise another process was first.
                raise
    return final
