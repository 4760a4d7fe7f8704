"""What a run leaves behind: the trained model, its predictions on held-out images, and what to look at."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.storage import workdir_files
from transfer_jax.distributed import processes
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.models.flat_arrays import block_of
from transfer_jax.report.misclassified import write_mistakes
from transfer_jax.report.page import attempt, write_run_report
from transfer_jax.report.run_figures import write_pictures
from transfer_jax.report.predictions import write_predictions
from transfer_jax.report.timeline import Timeline, draw_timelines
from transfer_jax.planning.plan import planned_timeline
from transfer_jax.training.run import Run
from transfer_jax.weights.saved_model import SavedModel


def write_outcome(run: Run, arrays: Mapping[str, np.ndarray], probabilities: np.ndarray) -> None:
    """Writes `model/`, `predictions.csv`, `mistakes/`, `timeline.json` and the pictures into the workdir.

    The timeline shows the schedule as it was planned, and as it was carried out.

    Args:
        run: The run.
        arrays: All arrays of the model at its end.
        probabilities: `(images, classes)` of the held-out images.
    """
    held_out = run.evaluation
    saved = SavedModel(
        model=run.config.model,
        class_names=held_out.class_names,
        preprocessing=run.preprocessing,
        hidden=run.config.hidden,
        taps=run.config.taps,
    )
    saved.save(run.workdir / workdir_files.MODEL, arrays)
    write_predictions(
        run.workdir / workdir_files.PREDICTIONS,
        held_out.names,
        held_out.class_names,
        probabilities,
        held_out.labels,
    )
    truth = (held_out.labels, held_out.names, held_out.class_names)
    write_pictures(run.workdir, probabilities, held_out.labels, held_out.class_names)
    write_mistakes(run.workdir, probabilities, *truth, held_out.image)
    path = run.workdir / workdir_files.TIMELINE
    content = json.loads(path.read_bytes())
    planned = Timeline.from_json(content["blocks"], content["planned"])
    executed = Timeline.executed(run.workdir, planned.blocks)
    draw_timelines({"planned": planned, "carried out": executed}, run.workdir / workdir_files.TIMELINE_PLOT)
    write_text(path, json.dumps({**content, "executed": executed.to_json()}))


def write_plan(run: Run) -> None:
    """Writes `timeline.json`, if this is the first process: what the schedule will do.

    It has the `blocks`, input side first, the `parameters` of each, how many `images` there are, and the
    `planned` rates by epoch; the outcome adds those that were `executed`.
    """
    if not processes.is_first():
        return
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


def write_phases(workdir: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes `phases.json`, what the phases that are over did, if this is the first process.

    Args:
        workdir: The run's folder.
        results: The fields of their `PhaseResult`.
    """
    if processes.is_first():
        write_text(workdir / workdir_files.PHASES, json.dumps({"phases": results}, indent=1))


def report(workdir: Path, *, anew: bool = True) -> None:
    """Writes `report.html`, if this is the first process; a run is not lost if that fails.

    Args:
        workdir: The run's folder.
        anew: Whether to write it although there is one.
    """
    if processes.is_first() and (anew or not (workdir / workdir_files.REPORT).exists()):
        attempt(write_run_report, workdir)
