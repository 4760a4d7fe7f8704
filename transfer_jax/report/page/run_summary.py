"""A summary of a run in words: its setup, its accuracy, and its cost."""

from collections.abc import Mapping
from typing import Any

from scipy.stats import binomtest

from transfer_jax.counted import counted
from transfer_jax.report.names import visible
from transfer_jax.report.page.formats import count, percent, seconds
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.schedule_words import schedule_in_words
from transfer_jax.storage import workdir_files
from transfer_jax.tasks import SingleLabel, task_class


def run_summary(run: RunFiles) -> list[str]:
    """Returns three paragraphs on a run, finished or not, made from its files."""
    return [setup_paragraph(run), accuracy_paragraph(run), cost_paragraph(run)]


def setup_paragraph(run: RunFiles) -> str:
    """Returns the model, the images and the schedule of the config, in words."""
    config = run.config
    classes = run.scores.get("classes") or len(run.scores.get("per_class", ()))
    start = "random" if config["weights"] == "none" else "pretrained"
    number = run.timeline.get("images", {}).get("train")
    images = f"{counted(number, 'image')} of" if number else "the images of"
    noun = "label" if run.scores.get("task") == "multi_label" else "class"
    suffix = f", which have {counted(classes, noun)}" if classes else ""
    setup = (
        f"{config['model']} starts from {start} weights and trains on {images} {config['images']}{suffix}."
    )
    return f"{setup} {schedule_in_words(run.schedule)}"


def accuracy_paragraph(run: RunFiles) -> str:
    """Returns the last accuracy with its Wilson interval, and that of the most common class, in words."""
    scores = run.scores
    if not scores:
        return f"No validation image has been scored yet: {_progress(run)}."
    start = "The model" if run.finished else f"The run is not finished: {_progress(run)}. So far the model"
    if not issubclass(task_class(scores), SingleLabel):
        return _scores_in_words(start, scores)
    images, correct = scores["images"], round(scores["accuracy"] * scores["images"])
    interval = binomtest(correct, images).proportion_ci(0.95, method="wilson")
    return (
        f"{start} classifies {count(correct)} of {counted(images, 'validation image')} correctly: "
        f"{percent(correct / images)} (95% interval: {percent(interval.low)} to {percent(interval.high)}). "
        f"{_most_common(run)}"
        f"On average over the classes, {percent(scores['balanced_accuracy'])} of the images of a class are "
        "recognized (balanced accuracy)."
    )


def _most_common(run: RunFiles) -> str:
    """Returns a sentence on the accuracy of the most common class; empty if the classes are not known."""
    found = run.class_scores()
    if found is None:
        return ""
    place = int(found.images.argmax())
    return (
        f"Always predicting the most common class, {visible(found.names[place])}, would be right for "
        f"{percent(found.images[place] / found.images.sum())}. "
    )


def _scores_in_words(start: str, scores: Mapping[str, Any]) -> str:
    """Returns the most important scores of a task without classes that exclude each other."""
    task, images = task_class(scores), counted(scores["images"], "validation image")
    quantities = scores.get("per_quantity", {})
    if len(quantities) == 1:
        ((name, each),) = quantities.items()
        text = (
            f"{start} predicts {visible(name)} for {images}. On average, a prediction is {each['mae']:.4g} "
        )
        if (interval := each["mae_interval"]) is None:
            text += "off."
        else:
            text += f"off (95% interval: {interval[0]:.4g} to {interval[1]:.4g})."
        if each["r2"] is not None:
            text += f" R² is {each['r2']:.4g}: 1 is perfect, and always predicting the mean gives 0."
        return text
    headline = task.metrics[0]
    value = headline.text(headline.of(scores))
    text = f"{start} is scored on {images}: {headline.title} {value} ({headline.note})."
    return f"{text} The tiles below show its other scores."


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
        several = len(run.freeze_records) > 1
        share = f"of the {count(total)} parameters ({percent(trained / total)})" if total else "parameters"
        at_most, at_once = ("At most ", " at a time") if several else ("", "")
        verb = "is" if trained == 1 else "are"
        sentences.append(f"{at_most}{count(trained)} {share} {verb} trained{at_once}.")
    goodput = run.json(workdir_files.GOODPUT)
    if goodput:
        spent, steps = seconds(sum(goodput["seconds"].values())), percent(goodput["share"])
        sentences.append(f"The run took {spent}; training steps were {steps} of this time.")
    frozen = never_trained(run)
    if frozen and run.frozen_unchanged:
        several = f"The {len(frozen)} blocks from {frozen[0]} to {frozen[-1]}"
        blocks = several if len(frozen) > 1 else f"The block {frozen[0]}"
        verb = "is" if len(frozen) == 1 else "are"
        sentences.append(f"{blocks} {verb} frozen: hashes before and after each phase show no change.")
    return " ".join(sentences) or "Nothing has been trained yet."


def never_trained(run: RunFiles) -> list[str]:
    """Returns the blocks that no phase trained, input side first; empty if they are not a prefix."""
    trained = {
        block for each in run.freeze_records for span in each["spans"] for block in span["trained"]["blocks"]
    }
    frozen = [block for block in run.blocks if block not in trained]
    return frozen if trained and frozen == run.blocks[: len(frozen)] else []
