"""A summary of a run in words: its setup, its accuracy, and its cost."""

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

from transfer_jax.counted import counted
from transfer_jax.report.names import visible
from transfer_jax.report.page.formats import count, percent, seconds
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import task_class


def run_summary(run: RunFiles) -> list[str]:
    """Returns three paragraphs on a run, finished or not, made from its files."""
    return [setup_paragraph(run), accuracy_paragraph(run), cost_paragraph(run)]


def setup_paragraph(run: RunFiles) -> str:
    """Returns the model, the images and the schedule of the config, in words."""
    config = run.config
    classes = len(run.scores.get("per_class", ()))
    if config["weights"] == "none":
        training = "trained from random weights"
    else:
        training = "fine-tuned from pretrained weights"
    number = run.timeline.get("images", {}).get("train")
    images = f"{counted(number, 'image')} of" if number else "the images of"
    suffix = f" ({counted(classes, 'class', 'classes')})" if classes else ""
    phases = ", then ".join(
        f"{each['train']} for {counted(each['epochs'], 'epoch')}" for each in run.schedule
    )
    setup = f"{config['model']} is {training} on {images} {config['images']}{suffix}."
    return f"{setup} The schedule trains {phases}."


def accuracy_paragraph(run: RunFiles) -> str:
    """Returns the last accuracy with its Wilson interval, and that of the most common class, in words."""
    scores = run.scores
    if not scores:
        return f"No validation image has been scored yet: {_progress(run)}."
    start = "The model" if run.finished else f"The run is not finished: {_progress(run)}. So far the model"
    if "confusion" not in scores:
        return _scores_in_words(start, scores)
    images, correct = scores["images"], round(scores["accuracy"] * scores["images"])
    interval = binomtest(correct, images).proportion_ci(0.95, method="wilson")
    rates = {name: row["images"] / images for name, row in scores["per_class"].items()}
    most_common = max(rates, key=lambda name: rates[name])
    return (
        f"{start} classifies {count(correct)} of {counted(images, 'validation image')} correctly: "
        f"{percent(correct / images)} (95% interval {percent(interval.low)} to {percent(interval.high)}). "
        f"Always predicting the most common class, {visible(most_common)}, would give "
        f"{percent(rates[most_common])}. "
        f"The mean recall of the classes (balanced accuracy) is {percent(scores['balanced_accuracy'])}."
    )


def _scores_in_words(start: str, scores: Mapping[str, Any]) -> str:
    """Returns the scores of a task without classes that exclude each other."""
    shown = [
        f"{metric.title} {metric.text(metric.of(scores))} ({metric.note})"
        for metric in task_class(scores).metrics
    ]
    text = f"{start} has these scores on {counted(scores['images'], 'validation image')}: {', '.join(shown)}."
    quantities = scores.get("per_quantity", {})
    if len(quantities) == 1:
        ((name, each),) = quantities.items()
        if (interval := each["mae_interval"]) is not None:
            text += (
                f" Its predictions of {visible(name)} are off by {each['mae']:.4g} on average (95% interval "
                f"{interval[0]:.4g} to {interval[1]:.4g})."
            )
    return text


def _progress(run: RunFiles) -> str:
    if not run.epochs:
        return "no epoch is finished"
    last = run.epochs[-1]
    epochs = {phase["name"]: phase["epochs"] for phase in run.schedule}
    return f"epoch {last['epoch']} of {epochs[last['phase']]} of phase {visible(last['phase'])} is done"


def cost_paragraph(run: RunFiles) -> str:
    """Returns the number of trained parameters, the time, and the blocks that stayed frozen, in words."""
    trained = run.trained_parameters
    sentences = []
    if trained is not None:
        total = sum(run.timeline.get("parameters", {}).values())
        parameters = f" of {count(total)} parameters ({percent(trained / total)})" if total else " parameters"
        at_most = "at most " if len(run.freeze_records) > 1 else ""
        at_once = " at a time" if len(run.freeze_records) > 1 else ""
        sentences.append(f"The run trained {at_most}{count(trained)}{parameters}{at_once}.")
    goodput = run.json(workdir_files.GOODPUT)
    if goodput:
        spent, steps = seconds(sum(goodput["seconds"].values())), percent(goodput["share"])
        sentences.append(f"It took {spent}, of which {steps} were training steps.")
    frozen = never_trained(run)
    if frozen and run.frozen_unchanged:
        several = f"The {len(frozen)} blocks from {frozen[0]} to {frozen[-1]}"
        blocks = several if len(frozen) > 1 else f"The block {frozen[0]}"
        sentences.append(f"{blocks} never changed, as hashes before and after each phase show.")
    return " ".join(sentences) or "Nothing has been trained yet."


def never_trained(run: RunFiles) -> list[str]:
    """Returns the blocks that no phase trained, input side first; empty if they are not a prefix."""
    trained = {
        block for each in run.freeze_records for span in each["spans"] for block in span["trained"]["blocks"]
    }
    frozen = [block for block in run.blocks if block not in trained]
    return frozen if trained and frozen == run.blocks[: len(frozen)] else []
