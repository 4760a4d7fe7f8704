"""Files that an option such as `--out` names, checked before the work whose results they receive."""

import os
from pathlib import Path

from transfer_jax.storage.workdir_files import check_not_of_run


def check_output_file(out: Path | None, endings: tuple[str, ...]) -> None:
    """Raises an error if a file cannot be written.

    Args:
        out: The file; None checks nothing.
        endings: The allowed endings, in lower case.

    Raises:
        ValueError: If the file has another ending, or is a file that a run is read from.
        OSError: If its folder is missing or read-only, or a folder has its name.
    """
    if out is None:
        return
    if out.suffix.lower() not in endings:
        raise ValueError(f"--out must end in {' or '.join(endings)}, got {out}")
    if out.is_dir():
        raise IsADirectoryError(f"--out {out}: this is a folder; give the name of a file")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: the folder {out.parent} does not exist")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {out}: the folder {out.parent} is read-only; choose another one")
    check_not_of_run(out)
