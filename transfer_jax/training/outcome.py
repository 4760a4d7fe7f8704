"""What a run leaves behind: the trained model, its predictions on the held-out images, and pictures."""

from collections.abc import Mapping

import numpy as np

from transfer_jax.report.pictures import write_pictures
from transfer_jax.report.predictions import write_predictions
from transfer_jax.report.timeline import Timeline, draw_timelines
from transfer_jax.training.plan import planned_timeline
from transfer_jax.training.run import Run
from transfer_jax.weights.saved import SavedModel


def write_outcome(run: Run, arrays: Mapping[str, np.ndarray], probabilities: np.ndarray) -> None:
    """Writes `model/`, `predictions.csv` and the pictures into the workdir.

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
    saved.save(run.workdir / "model", arrays)
    write_predictions(
        run.workdir / "predictions.csv",
        held_out.names,
        held_out.class_names,
        probabilities,
        held_out.labels,
    )
    write_pictures(run.workdir, probabilities, held_out.labels, held_out.class_names, held_out.image)
    planned = planned_timeline([run.parts(index) for index in range(len(run.config.schedule.phases))])
    executed = Timeline.executed(run.workdir, planned.blocks)
    draw_timelines({"planned": planned, "carried out": executed}, run.workdir / "timeline.png")
