"""The table of a study: a Parquet file with one row for each finished trial.

It can be read while the study runs.
"""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.report.predictions import stored_name
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_atomically
from transfer_jax.studies.study import Study

TIMES = ("extract_seconds", "compile_seconds", "train_seconds", "seconds")
"""The columns whose values differ when the same study is run again."""
_NOT_IN_TABLE = ("curve",)


def read_rows(study: Study, folder: Path) -> list[dict[str, Any]]:
    """Returns the full rows of all finished trials, in the order of the study."""
    paths = [trial.workdir(folder) / workdir_files.TRIAL_ROW for trial in study.trials]
    return [json.loads(path.read_bytes()) for path in paths if path.exists()]


def write_table(rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Writes `table.parquet` atomically, with the columns of all rows."""
    import pyarrow.parquet  # Importing it is slow.

    kept = [{name: x for name, x in row.items() if name not in _NOT_IN_TABLE} for row in rows]
    names = list(dict.fromkeys(name for row in kept for name in row))
    columns = {stored_name(name): _column([row.get(name) for row in kept]) for name in names}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    write_atomically(folder / workdir_files.TABLE, lambda file: file.write(buffer.getvalue()))


def read_table(folder: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Returns the rows of `table.parquet`, with all columns or only the given ones."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(folder / workdir_files.TABLE, columns=columns).to_pylist()


def _column(values: list[Any]) -> Any:
    """Returns an array of one type: of texts if the types differ, and of float64 if there are no values."""
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and kinds != {int, float}:
        values = [None if value is None else str(value) for value in values]
    values = [stored_name(value) if isinstance(value, str) else value for value in values]
    return pyarrow.array(values, pyarrow.float64() if all(value is None for value in values) else None)
