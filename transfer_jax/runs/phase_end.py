"""The result of a phase at its end, as a record and as a sentence."""

from collections.abc import Mapping
from typing import Any

from transfer_jax.extras import optional
from transfer_jax.runs.goodput import Goodput
from transfer_jax.runs.result import PhaseResult
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.runs.scoring import Scored
from transfer_jax.storage import workdir_files
from transfer_jax.training.phase_measurements import measure_exchange_seconds
from transfer_jax.training.phase_trainer import PhaseTrainer


def phase_result(
    trainer: PhaseTrainer,
    position: RunProgress,
    goodput: Goodput,
    kept: Scored,
    ended: Scored,
    test: Scored | None = None,
) -> PhaseResult:
    """Returns the result of a phase, and measures the time of its gradient exchange.

    Args:
        trainer: The phase after its last step.
        position: The progress of the run, at the end of the phase.
        goodput: The run's clock; its `exchange` is written.
        kept: The scores of the validation images with the arrays that the phase keeps.
        ended: Those with the arrays after its last epoch.
        test: The scores of the test images with the arrays that it keeps; None without them.
    """
    parts, run, best = trainer.parts, trainer.run, position.best
    epochs = int(trainer.state.step) // parts.steps_per_epoch
    steps, step = epochs * parts.steps_per_epoch, trainer.programs.step
    spent = goodput.since(position.clock_start)
    train_seconds = max(spent["step"] + spent["wait"], 1e-9)
    with optional("time of the gradient exchange", f"{workdir_files.GOODPUT} will not have it."):
        goodput.exchange = measure_exchange_seconds(trainer) * steps / train_seconds
    chosen: dict[str, Any] = {"kept_epoch": epochs}
    if best.get("has_arrays"):
        chosen = {
            "kept_epoch": best["epoch"],
            "kept_by": best["metric"],
            "kept_value": best["value"],
            "start_value": best.get("start", {}).get("value"),
            "end_value": ended.scores[best["metric"]],
            **_gain(best),
        }
    return PhaseResult(
        name=parts.phase.name,
        trainable_parameters=sum(array.size for array in trainer.state.trainable.values()),
        optimizer_bytes=trainer.optimizer_bytes,
        boundary=trainer.data.start,
        extracted=position.extracted,
        step_flops=None if step is None else 2 * step.multiply_adds,
        extract_seconds=spent["extract"],
        compile_seconds=spent["compile"],
        train_seconds=train_seconds,
        images_per_second=steps * run.batch_size / train_seconds,
        metrics=kept.scores,
        planned_epochs=parts.phase.epochs,
        epochs=epochs,
        test_metrics={} if test is None else test.scores,
        **chosen,
    )


def _gain(best: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the gain of the epoch that is kept for it, or that of the best one if it is not clear."""
    of = best if "gain" in best else best.get("leader", best)
    if "gain" not in of:
        return {}
    headline = of.get("headline", {})
    return {
        "gain": of["gain"],
        "gain_error": of["gain_error"],
        "gain_epoch": of["epoch"],
        "headline": headline.get("metric", ""),
        "headline_gain": headline.get("gain"),
        "headline_gain_error": headline.get("gain_error"),
    }
