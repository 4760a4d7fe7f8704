"""Defaults that are chosen from the images: split, image size, schedule and batch size, each with a reason.

The rules and their sources:

* A quarter of the images is the validation set, which chooses the epoch of each phase. The publication of
  the solar cells divides its images like this (Deitsch et al. 2019). More than `ENOUGH` validation images are
  rarely useful: the 95 % interval of an accuracy is then at most 2 points on each side.
* With few validation images (`kept_epoch.ENOUGH`), only the head trains: they could not notice a phase that
  makes the model worse.
* With few images a class, only the head trains: a linear probe keeps the pretrained features, which
  fine-tuning distorts (Kumar et al. 2022, arXiv:2202.10054).
* With more images, the top blocks train after the head, on cached features of four views of each image. On
  the solar cells this is as accurate as the whole network for as many epochs, at a third of the cost
  (docs/schedules.md). With an accelerator the whole network trains: `layer_decay` was the best recipe there.
* With many images there are fewer epochs, so that a run sees about as many images as in these measurements.
"""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.counted import counted
from transfer_jax.freezing.recipes import feature_extraction, five_steps, layer_decay
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.training.kept_epoch import ENOUGH as ENOUGH_TO_CHOOSE

QUARTER = 0.25
ENOUGH = 2500
"""Number of validation images for which an accuracy of 50 % has a 95 % interval of 2 points on each side."""
ENOUGH_OF_A_CLASS = 25
"""Number of validation images per class; more classes need more images than `ENOUGH`."""
PROBE = 10
"""Number of training images a class below which only the head trains."""
SHALLOW = 50
"""Number of training images a class below which the top two blocks train; above it, a third of all blocks."""
_WHOLE = 1000
"""Number of training images from which the whole network trains on an accelerator."""
_VIEWS = 4
_BATCH, _LEAST_BATCH, _STEPS = 32, 8, 8
"""The batch size of all measurements, the smallest batch size, and the wanted number of steps in an epoch."""


_STRATA = {"multi_label": "combination of labels", "regression": "range of numbers"}
"""Names of the groups that a split divides in proportion, by task; `class` for all others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about images, network and machine that defaults are chosen from.

    Attributes:
        counts: Number of images of each class that has any.
        own_split: Numbers of training and validation images if the source has its own split, else None.
        own_test: Number of test images of the source, which the other counts do not include.
        task: The kind of task. The classes are combinations of labels for `multi_label`, and ranges of
            numbers for `regression`.
        pixels: Median of the images' shorter sides, in pixels.
        expected: Height and width of the input that the weights expect, in pixels.
        blocks: Number of blocks of the network that have parameters.
        accelerator: Whether there is a GPU or TPU.
        duplicates: Number of images in groups of near duplicates; None if the images were not scanned.
        units: Number of groups of near duplicates of each class, an image without duplicates being a group;
            None if the images were not scanned.
    """

    counts: tuple[int, ...]
    own_split: tuple[int, int] | None
    pixels: int
    expected: int
    blocks: int
    accelerator: bool
    duplicates: int | None
    units: tuple[int, ...] | None = None
    own_test: int = 0
    task: str = "single_label"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A default that was chosen, with the reason.

    Attributes:
        field: The field of the config, or `split` or `cache`.
        value: The chosen value.
        why: The reason, with figures.
    """

    field: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.field.replace('_', ' ')}: {self.value}; {self.why}"

    def to_json(self) -> dict[str, Any]:
        """Returns the choice as JSON values."""
        return dataclasses.asdict(self)


def choose(
    facts: Facts, config: TrainConfig, given: Collection[str]
) -> tuple[TrainConfig, tuple[Choice, ...]]:
    """Chooses defaults for the fields that the user did not set.

    Args:
        facts: The facts about images, network and machine.
        config: The config, with the values that the user set.
        given: Names of the fields that the user set; they stay as they are.

    Returns:
        The config with the chosen values, and the choices in the order of a run.
    """
    images = sum(facts.counts)
    together = (
        config.keep_together if "keep_together" in given else bool(facts.duplicates and not facts.own_test)
    )
    validation, choices = _split(facts, config, given, together)
    test = 0 if facts.own_split or facts.own_test else math.ceil(config.test_fraction * images)
    train = (facts.own_split[0] if facts.own_split else images - validation) - test
    if (limit := config.images_per_class) is not None and not facts.own_split:
        train = sum(min(limit, max(round(count * train / images), 1)) for count in facts.counts)
    settings: dict[str, Any] = {choice.field: choice.value for choice in choices if choice.field != "split"}
    if "keep_together" not in given and facts.duplicates and not (facts.own_split or facts.own_test):
        settings["keep_together"] = True
        why = (
            f"{counted(facts.duplicates, 'image has a near duplicate', 'images have near duplicates')}, "
            "which must not be on both sides of the split"
        )
        choices.append(Choice("keep_together", True, why))
    if "image_size" not in given:
        settings["image_size"] = facts.expected
        choices.append(Choice("image_size", facts.expected, _image_size_reason(facts)))
    if "schedule" not in given:
        settings["schedule"], why = _schedule(facts, train, validation)
        choices.append(Choice("schedule", str(settings["schedule"]), why))
    if not {"batch_size", "accumulate"} & {*given}:
        settings["batch_size"], why = _batch(train)
        choices.append(Choice("batch_size", settings["batch_size"], why))
    if "keep_epoch" not in given:
        choices.append(_keep(validation))
    return dataclasses.replace(config, **settings), tuple(choices)


def _split(
    facts: Facts, config: TrainConfig, given: Collection[str], together: bool
) -> tuple[int, list[Choice]]:
    """Returns the number of validation images and the choice of the split; no choice if the user set it.

    Args:
        facts: The facts about the images.
        config: The config.
        given: Names of the fields that the user set.
        together: Whether near duplicates stay on one side of the split.
    """
    units = facts.units if together and facts.units is not None else facts.counts
    # A class that cannot be divided stays in training.
    divided = [count for count, size in zip(facts.counts, units, strict=True) if size > 1]
    images, classes, total = sum(divided), len(divided), sum(size for size in units if size > 1)
    if facts.own_split is not None:
        train, validation = facts.own_split
        parts = [f"{train:,} training", f"{validation:,} validation"]
        parts += [f"{facts.own_test:,} test"] * bool(facts.own_test)
        last = "image" if (facts.own_test or validation) == 1 else "images"
        why = f"{', '.join(parts[:-1])} and {parts[-1]} {last}{_interval(facts, validation)}"
        return validation, [Choice("split", "that of the source", why)]
    if "val_fraction" in given:
        return math.ceil(config.val_fraction * images), []
    fraction = chosen_fraction(divided, total)
    validation = math.ceil(fraction * images)
    each = max(int(fraction * min(divided, default=0)), 1)
    about = "about " if facts.duplicates else ""  # A group of near duplicates is drawn as one image.
    part = f"{about}{validation:,} of {counted(sum(facts.counts), 'image')} for validation"
    what = f"{part}, at least {each:,} of each {_STRATA.get(facts.task, 'class')}"
    if whole := len(facts.counts) - classes:
        single = "one image" if units is facts.counts else "one image or one group of near duplicates"
        what += f" apart from {whole:,} with {single}"
    return validation, [Choice("val_fraction", fraction, f"{what}{_interval(facts, validation)}")]


def chosen_fraction(images: Sequence[int], units: int) -> float:
    """Returns the fraction of validation images that is chosen.

    Args:
        images: Number of images of each class that can be divided.
        units: Number of images, or of groups of near duplicates, of these classes.
    """
    classes = len(images)
    enough = max(ENOUGH, ENOUGH_OF_A_CLASS * classes)
    fraction = min(QUARTER, max(math.ceil(100 * enough / max(sum(images), 1)) / 100, 0.05))
    if math.ceil(fraction * units) < classes:  # At least one of each class.
        return min(0.5, math.ceil(100 * classes / units) / 100)
    return fraction


def _interval(facts: Facts, validation: int) -> str:
    """Returns the 95 % interval of an accuracy of 80 %, by the normal approximation; nothing for numbers."""
    if facts.task == "regression":
        return ""
    points = 196 * math.sqrt(0.16 / max(validation, 1))
    return f"; the 95 % interval of an accuracy of 80 % on them is 80 ± {points:.1f} %"


def _image_size_reason(facts: Facts) -> str:
    enlarged = ", so they are enlarged" if facts.pixels * 2 <= facts.expected else ""
    return f"the size of the weights; the shorter sides of your images have {facts.pixels} pixels{enlarged}"


def _keep(validation: int) -> Choice:
    """Returns which epoch of each phase is kept, and the reason."""
    if validation >= ENOUGH_TO_CHOOSE:
        why = f"the one with the best score of the {validation:,} validation images, if its gain is clear"
        return Choice("keep_epoch", "best", f"{why}; a later phase without a clear gain is undone")
    why = f"{counted(validation, 'validation image is', 'validation images are')} too few to choose one"
    return Choice("keep_epoch", "last", why)


def _schedule(facts: Facts, train: int, validation: int) -> tuple[Schedule, str]:
    """Returns a schedule and the reason, from the numbers of training and validation images."""
    each, few = _images_of_a_class(facts, train)
    if each < PROBE:
        return feature_extraction(), f"only the head: {few} too few to fine-tune the network"
    if validation < ENOUGH_TO_CHOOSE:
        images = counted(validation, "validation image")
        return feature_extraction(), f"only the head: {images} would not show that more blocks make it worse"
    if facts.accelerator and train >= _WHOLE:
        epochs = _epochs(train, most=20)
        why = f"the head, then all blocks, slower towards the input: {train:,} images on an accelerator"
        return layer_decay(0.85, learning_rate=3e-4, epochs=epochs, augment=True), why
    epochs = _epochs(train, most=14)
    count = 2 if each < SHALLOW else max(round(facts.blocks / 3), 2)
    schedule = five_steps(f"top({count})", epochs=epochs, views=min(_VIEWS, epochs))
    what = f"the head, then the top {count} of {facts.blocks} blocks"
    if each < SHALLOW:
        return schedule, f"{what}: {few} few, and more blocks would overfit"
    return schedule, f"{what}: as accurate as all blocks for as many epochs, at a third of the cost"


def _images_of_a_class(facts: Facts, train: int) -> tuple[int, str]:
    """Returns the number of training images a class, and the beginning of a sentence about them.

    Numbers have no classes; half of the images count, as for two classes.
    """
    if facts.task == "regression":
        return train // 2, counted(train, "training image is", "training images are")
    each, name = train // len(facts.counts), _STRATA.get(facts.task, "class")
    return each, counted(each, f"training image a {name} is", f"training images a {name} are")


def _epochs(train: int, most: int) -> int:
    """Returns fewer epochs for more images; the measurements saw 14 times 2,000 images."""
    return min(most, max(2000 * most // train, 3))


def _batch(train: int) -> tuple[int, str]:
    if train >= _BATCH * _STEPS:
        return _BATCH, "the batch size that the learning rates of the recipes were tested with"
    batch = max(_LEAST_BATCH, 2 ** int(math.log2(max(train / _STEPS, 1))))
    images = counted(train, "training image gives", "training images give")
    return batch, f"{images} more than a few steps an epoch"
