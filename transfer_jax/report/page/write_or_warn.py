"""A guard around reports: an error is logged and does not fail the run."""

import logging
from collections.abc import Callable
from pathlib import Path


def write_or_warn(write: Callable[[Path], object], folder: Path) -> None:
    """Writes the report of a folder, and logs a warning if that fails.

    Args:
        write: A function that writes the report.
        folder: The folder of a run or a study.
    """
    try:
        write(folder)
    except Exception as error:
        logging.getLogger(__name__).warning(
            "the report of %s is not written: %s: %s. All other results are saved; "
            "`transfer-jax report` writes the report again",
            folder,
            type(error).__name__,
            error,
        )
