"""Reports that may fail, where more is at stake than they."""

import logging
from collections.abc import Callable
from pathlib import Path


def write_or_warn(write: Callable[[Path], object], folder: Path) -> None:
    """Writes the report of a folder; if that fails it is logged, and the work that it is about is not lost.

    Args:
        write: Writes it.
        folder: The folder of a run or a study.
    """
    try:
        write(folder)
    except Exception as error:
        logging.getLogger(__name__).warning(
            "No report of %s: %s: %s. Nothing else is lost; transfer-jax report writes it again.",
            folder,
            type(error).__name__,
            error,
        )
