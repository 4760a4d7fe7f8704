"""The table of a study: a row a finished trial, as Parquet, which may be read while the study runs."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_atomically
from transfer_jax.studies.study import TRIALS, Study
from transfer_jax.studies.trial import ROW

TABLE = workdir_files.TABLE
TIMES = ("extract_seconds", "compile_seconds", "train_seconds", "seconds")
"""The columns that another run of the same study has other values in."""
_NOT_IN_TABLE = ("curve",)


def read_rows(study: Study, folder: Path) -> list[dict[str, Any]]:
    """The rows of all trials that are finished, in the order of the study, with all that they say."""
    paths = [folder / TRIALS / trial.name / ROW for trial in study.trials]
    return [json.loads(path.read_bytes()) for path in paths if path.exists()]


def write_table(rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Writes `table.parquet`, in one step; columns are those of any row."""
    import pyarrow.parquet  # Takes a while to import.

    kept = [{name: x for name, x in row.items() if name not in _NOT_IN_TABLE} for row in rows]
    names = list(dict.fromkeys(name for row in kept for name in row))
    columns = {name: _column([row.get(name) for row in kept]) for name in names}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    write_atomically(folder / TABLE, lambda file: file.write(buffer.getvalue()))


def read_table(folder: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a table that was written."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / TABLE, columns=columns).to_pylist()


def _column(values: list[Any]) -> Any:
    """An array of one type; a column of nothing but missing values is one of numbers."""
    import pyarrow

    return pyarrow.array(values, pyarrow.float64() if all(value is None for value in values) else None)
