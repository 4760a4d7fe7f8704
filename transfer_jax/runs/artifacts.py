"""The results of a run: its plan, its phases, the trained model, and the predictions of its images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.extras import optional
from transfer_jax.models.adapters.adapter import is_adapter_path
from transfer_jax.models.paths import block_of
from transfer_jax.planning.plan import planned_timeline
from transfer_jax.runs.run_predictions import write_run_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.tasks.temperature import best_temperature
from transfer_jax.tasks.top_predictions import Predicted
from transfer_jax.training.run import Run
from transfer_jax.weights.base_weights import BaseWeights, base_of
from transfer_jax.weights.saved_model import SavedModel, model_checksum


def write_artifacts(
    run: Run,
    arrays: Mapping[str, np.ndarray],
    predictions: Predicted,
    test_predictions: Predicted | None = None,
) -> None:
    """Writes `model/` and the predictions of the validation and the test images into the workdir.

    Args:
        run: The run.
        arrays: All arrays of the model at the end of the run.
        predictions: Predictions of the validation images, which choose thresholds and the temperature:
            `(images, columns)`, or the most probable classes.
        test_predictions: Those of the test images; None if there are none.
    """
    task = run.task.tuned(predictions, run.evaluation.labels)
    saved = SavedModel(
        model=run.config.model,
        task=task,
        preprocessing=run.preprocessing,
        hidden=run.config.hidden,
        taps=run.config.taps,
        adapters=run.at(len(run.config.schedule.phases) - 1).adapters,
        base=_base(run, arrays),
        temperature=best_temperature(task, predictions, run.evaluation.labels),
    )
    saved.save(run.workdir / workdir_files.MODEL, arrays)
    write_run_predictions(run, task, "validation", predictions)
    if run.test is not None and test_predictions is not None:
        write_run_predictions(run, task, "test", test_predictions)


def _base(run: Run, arrays: Mapping[str, np.ndarray]) -> BaseWeights | None:
    """Returns the weights that a run started from if it trained only adapters and the head, else None."""
    phases = [run.parts(index) for index in range(len(run.config.schedule.phases))]
    changed = {path for parts in phases for path in parts.changes if block_of(path) != "head"}
    weights, only_adapters = run.weights, all(map(is_adapter_path, changed))
    if not (phases[-1].adapters and only_adapters) or weights is None or run.config.reinitialize:
        return None
    entry, seed = run.config.weights_entry, run.config.seed
    return base_of(weights.name, weights.file, arrays, entry=entry, seed=seed)


def write_plan(run: Run) -> None:
    """Writes the planned schedule to `timeline.json` if this is the first process; a failure is a warning.

    The file has the `blocks`, input side first, the number of `parameters` of each, the number of `images`,
    and the `planned` learning rates by epoch. `draw_run` adds the `executed` ones.
    """
    if not processes.is_first():
        return
    with optional(workdir_files.TIMELINE, "The report will not show the planned schedule."):
        planned = planned_timeline([run.parts(index) for index in range(len(run.config.schedule.phases))])
        sizes = dict.fromkeys(planned.blocks, 0)
        for path in run.params:
            sizes[block_of(path)] += run.arrays[path].size
        content = {
            "blocks": planned.blocks,
            "parameters": sizes,
            "images": {
                "train": len(run.train),
                "held_out": len(run.evaluation),
                "test": 0 if run.test is None else len(run.test),
            },
            "planned": planned.to_json(),
        }
        write_text(run.workdir / workdir_files.TIMELINE, json.dumps(content))


def write_phases(workdir: Path, results: Sequence[Mapping[str, Any]], *, finished: bool) -> None:
    """Writes the results of the finished phases to `phases.json` if this is the first process.

    Args:
        workdir: The run's folder.
        results: The fields of each phase's `PhaseResult`.
        finished: Whether the model is written; the file then has its checksum.
    """
    if processes.is_first():
        content: dict[str, Any] = {"phases": results}
        if finished:
            content["model"] = model_checksum(workdir / workdir_files.MODEL)
        write_text(workdir / workdir_files.PHASES, json.dumps(content, indent=1))


def finished_results(workdir: Path) -> list[dict[str, Any]]:
    """Returns the results of the phases of a run whose model is written and present; else an empty list."""
    path = workdir / workdir_files.PHASES
    if not (path.is_file() and (workdir / workdir_files.MODEL).is_dir()):
        return []
    content = json.loads(path.read_bytes())
    return content["phases"] if "model" in content else []
