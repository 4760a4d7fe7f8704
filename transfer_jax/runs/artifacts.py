"""The results of a run: its plan, its phases, the trained model, and predictions of the validation images."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.extras import optional
from transfer_jax.models.paths import block_of
from transfer_jax.planning.plan import planned_timeline
from transfer_jax.report.predictions import write_predictions
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.training.run import Run
from transfer_jax.weights.saved_model import SavedModel, model_checksum


def write_artifacts(run: Run, arrays: Mapping[str, np.ndarray], probabilities: np.ndarray) -> None:
    """Writes `model/` and `predictions.csv` into the workdir.

    Args:
        run: The run.
        arrays: All arrays of the model at the end of the run.
        probabilities: Probabilities of the validation images, `(images, classes)`.
    """
    validation = run.evaluation
    saved = SavedModel(
        model=run.config.model,
        class_names=validation.class_names,
        preprocessing=run.preprocessing,
        hidden=run.config.hidden,
        taps=run.config.taps,
    )
    saved.save(run.workdir / workdir_files.MODEL, arrays)
    write_predictions(
        run.workdir / workdir_files.PREDICTIONS,
        validation.names,
        validation.class_names,
        probabilities,
        validation.labels,
    )


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
            "images": {"train": len(run.train), "held_out": len(run.evaluation)},
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
