"""The finished phases of a run, copied so that another run with more phases continues from them."""

import shutil
from pathlib import Path

from transfer_jax.storage import workdir_files
from transfer_jax.storage.foreign_files import is_foreign

_COPIED = (workdir_files.CHECKPOINTS, workdir_files.FREEZE_RECORDS, workdir_files.METRICS)


def copy_phases(source: Path, target: Path) -> None:
    """Copies checkpoints, freeze records and metrics of a run to the workdir of one that has not started.

    An interrupted copy is repeated by the next call.

    Args:
        source: The workdir of a run whose phases are the first phases of the other one.
        target: The workdir of the other run.
    """
    for name in _COPIED:
        if (source / name).is_dir():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(source / name, target / name, ignore=_foreign_names)
        else:
            shutil.copy(source / name, target / name)


def _foreign_names(folder: str, names: list[str]) -> list[str]:
    """Returns the names of files that systems create, and that may vanish while a folder is copied."""
    return [name for name in names if is_foreign(name)]
