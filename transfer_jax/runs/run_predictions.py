"""The files of predictions that a run writes at its end."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.extras import is_installed
from transfer_jax.report.prediction_columns import stored_name
from transfer_jax.report.prediction_files import PredictionBatch, write_prediction_batches, write_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.tasks import SingleLabel, Task
from transfer_jax.tasks.top_predictions import Predicted, TopPredictions
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.training.run import Part, Run

_FILES: dict[Part, str] = {
    "validation": workdir_files.PREDICTIONS,
    "test": workdir_files.TEST_PREDICTIONS,
}


def write_run_predictions(run: Run, task: Task, part: Part, predictions: Predicted) -> None:
    """Writes the predictions of a part of the images; see `LoggingConfig.prediction_columns`.

    Args:
        run: The run.
        task: The task, with its thresholds.
        part: `validation` or `test`.
        predictions: The predictions, `(images, columns)`, or the most probable classes of many images.
    """
    images, path = run.images(part), _place(run, part, many=isinstance(predictions, TopPredictions))
    if run.config.prediction_columns == "top" and task.kind == SingleLabel.kind:
        predictions = (
            predictions
            if isinstance(predictions, TopPredictions)
            else TopPredictions.of(predictions, images.labels)
        )
    if isinstance(predictions, TopPredictions):
        names = [stored_name(name) for name in task.names]
        write_text(run.workdir / workdir_files.CLASSES, json.dumps(names))
    write_predictions(path, images.names, task, predictions, images.labels)
    _delete_other(path)


def stream_predictions(trainer: PhaseTrainer, part: Part) -> None:
    """Writes all predictions of many images, one batch after the other; all processes must call it.

    Args:
        trainer: The last phase, with the arrays that it keeps.
        part: `validation` or `test`.
    """
    batches = trainer.all_predictions(part)
    if not processes.is_first():
        for _ in batches:
            pass
        return
    run = trainer.run
    path = _place(run, part, many=True)
    write_prediction_batches(path, run.task, _with_images(run, part, batches))
    _delete_other(path)


def _with_images(run: Run, part: Part, batches: Iterable[np.ndarray]) -> Iterator[PredictionBatch]:
    images, done = run.images(part), 0
    for predictions in batches:
        rows = slice(done, done + len(predictions))
        yield PredictionBatch(images.names[rows], predictions, images.labels[rows])
        done += len(predictions)


def _place(run: Run, part: Part, *, many: bool) -> Path:
    """Returns the file of the predictions of a part of the images."""
    file, chosen = run.workdir / _FILES[part], run.config.prediction_format
    parquet = many and is_installed("pyarrow") if chosen == "auto" else chosen == "parquet"
    return file.with_suffix(".parquet") if parquet else file


def _delete_other(path: Path) -> None:
    """Deletes the file of the other format, which a stopped session with another config may have written."""
    path.with_suffix(".csv" if path.suffix == ".parquet" else ".parquet").unlink(missing_ok=True)
