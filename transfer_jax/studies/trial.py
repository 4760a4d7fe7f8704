"""One run of a study, and its row of the table."""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.diagnostics.calibration import reliability
from transfer_jax.freezing.phase import Phase
from transfer_jax.planning.forward_cost import prefix_multiply_adds
from transfer_jax.planning.network import expected_input
from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.report.predictions import read_predictions
from transfer_jax.report.progress import Progress
from transfer_jax.runs import PhaseResult, Result, fit
from transfer_jax.runs.workdir import read_config
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.studies.shared_phases import copy_shared_phases
from transfer_jax.studies.study import Trial
from transfer_jax.tasks import Task
from transfer_jax.training.run import batch_size
from transfer_jax.weights.saved_model import SavedModel

_DELETED = (workdir_files.CHECKPOINTS, workdir_files.MODEL, workdir_files.FEATURES)


def run_trial(trial: Trial, workdir: Path, shared: Path, progress: Progress, *, keep: bool) -> dict[str, Any]:
    """Trains or resumes a trial and writes its `row.json`; a trial that has one is not repeated.

    Args:
        trial: The trial.
        workdir: The workdir of the trial.
        shared: The folder with the runs of shared phases; see `copy_shared_phases`.
        progress: The receiver of progress reports.
        keep: Whether to keep the model and checkpoints of the trial.

    Returns:
        The row of the trial; see `result_row`.
    """
    path = workdir / workdir_files.TRIAL_ROW
    if not path.exists():
        copy_shared_phases(trial.config, workdir, shared, progress)
        result = fit(trial.config, workdir, progress=progress)
        task = SavedModel.describe(workdir).task
        row = {"trial": trial.name, "label": trial.label, **trial.factors, **result_row(result, task)}
        write_text(path, json.dumps(row, indent=1))
    if not keep:
        delete_training_files(workdir)
    return json.loads(path.read_bytes())


def delete_training_files(workdir: Path) -> None:
    """Deletes the checkpoints, the model and the cached features of a finished trial."""
    for name in _DELETED:
        shutil.rmtree(workdir / name, ignore_errors=True)


def result_row(result: Result, task: Task) -> dict[str, Any]:
    """Returns the scores and the cost of a finished run.

    The scores are those of the task. `overfit_gap` says by how much the most important one is better on the
    training images than on the validation images.

    `operations` counts two operations for each multiply-add of convolutions and matrix products: those of all
    training steps, and those of the frozen prefix, once over the images where its features are cached.
    `operations_uncached` counts the same steps trained on images. `curve` has an entry for each evaluation,
    with the cost up to it.

    Args:
        result: The result of the run.
        task: Its task.
    """
    config, folder = read_config(result.workdir), result.workdir
    predictions = read_predictions(workdir_files.predictions_file(folder))
    lines = read_metrics(folder / workdir_files.METRICS)
    training = next((line for line in lines if line["kind"] == "training_scores"), {})
    epochs = Counter(line["phase"] for line in lines if line["kind"] == "train")
    in_epoch = next(line["step"] for line in lines if line["kind"] == "train")
    counts = [epochs[phase.name] * in_epoch for phase in result.phases]
    held_out, test = result.metrics["images"], result.test_metrics
    tested = test.get("images", 0)
    images = training.get("images", round(held_out / config.val_fraction) - held_out - tested)
    phases = zip(config.schedule.phases, result.phases, counts, strict=True)
    costs = [_cost(config, *each, images) for each in phases]
    metrics, main = result.metrics, task.headline
    names = [*dict.fromkeys(each.name for each in (*task.metrics, task.objective))]
    calibration = reliability(predictions.values, predictions.labels) if task.probabilistic else {}
    return {
        "task": task.kind,
        **{name: metrics[name] for name in names if name in metrics},
        **{name: value for name, value in calibration.items() if name == "ece"},
        f"train_{main.name}": main.of(training),
        f"train_{task.objective.name}": task.objective.of(training),
        "overfit_gap": main.gain(main.of(training), main.of(metrics)),
        "held_out_images": held_out,
        **{f"test_{name}": test[name] for name in names if name in test},
        **({"test_images": tested} if tested else {}),
        "training_images": images,
        "trainable_parameters": max(phase.trainable_parameters for phase in result.phases),
        "optimizer_bytes": max(phase.optimizer_bytes for phase in result.phases),
        "operations": _extraction_operations(costs) + sum(cost.steps for cost in costs),
        "operations_uncached": sum(cost.uncached for cost in costs),
        "extract_seconds": sum(phase.extract_seconds for phase in result.phases),
        "compile_seconds": sum(phase.compile_seconds for phase in result.phases),
        "train_seconds": sum(phase.train_seconds for phase in result.phases),
        "seconds": sum(result.goodput["seconds"].values()),
        "status": "finished",
        "curve": list(_curve(result, main.name, costs, lines)),
    }


@dataclasses.dataclass(frozen=True)
class _Cost:
    """The operations of a phase.

    Attributes:
        boundary: The boundary whose features are cached; None if the phase trains on images.
        extraction: The operations of the frozen prefix, once over all images.
        steps: The operations of the training steps.
        uncached: The operations of the same steps if they ran on images.
    """

    boundary: str | None
    extraction: int
    steps: int
    uncached: int


def _cost(config: TrainConfig, planned: Phase, phase: PhaseResult, count: int, images: int) -> _Cost:
    """Returns the operations of a phase that trains for `count` steps on `images` images."""
    steps = count * (phase.step_flops or 0)
    if phase.boundary is None:
        return _Cost(None, 0, steps, steps)
    side = expected_input(config).image_size
    image = 2 * prefix_multiply_adds(config.model, side, phase.boundary)
    extraction = image * (images * max(planned.views, 1) + phase.metrics["images"])
    return _Cost(phase.boundary, extraction, steps, steps + count * batch_size(config, images) * image)


def _extraction_operations(costs: list[_Cost]) -> int:
    """Returns the operations of all extractions; each boundary counts once."""
    return sum({cost.boundary: cost.extraction for cost in costs}.values())


def _curve(
    result: Result, score: str, costs: list[_Cost], lines: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields the score of each evaluation and the cost up to it, without the cost of evaluations."""
    operations, seconds, extracted = 0, 0.0, set()
    for phase, cost in zip(result.phases, costs, strict=True):
        operations += 0 if cost.boundary in extracted else cost.extraction
        extracted.add(cost.boundary)
        seconds += phase.extract_seconds + phase.compile_seconds
        found = [line for line in lines if line["kind"] == "evaluation" and line["phase"] == phase.name]
        epochs = max(line["epoch"] for line in found)
        for line in found:
            share = line["epoch"] / epochs
            yield {
                "phase": phase.name,
                "epoch": line["epoch"],
                score: line[score],
                "operations": round(operations + share * cost.steps),
                "seconds": seconds + share * phase.train_seconds,
            }
        operations += cost.steps
        seconds += phase.train_seconds
