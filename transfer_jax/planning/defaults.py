"""What a run is given where its user says nothing: split, image size, schedule and batch, each with a reason.

The rules are few. Where they come from:

* A quarter is held out, as those who published the solar cells did (Deitsch et al. 2019). Beyond `ENOUGH`
  images more of them hardly make the score surer: its 95 % interval is 2 points either way at most.
* Few images a class train the head alone: a linear probe keeps the pretrained features, which fine-tuning
  distorts (Kumar et al. 2022, arXiv:2202.10054).
* More images train the top blocks behind the head, from cached features of four views of each image: on the
  solar cells as good as the whole network for as many epochs, at a third of the cost (docs/schedules.md).
  With an accelerator the whole network is worth it: `layer_decay` was the best there.
* Epochs become fewer where images are many, so that about as many images are seen as in these measurements.
"""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.freezing.recipes import feature_extraction, five_steps, layer_decay
from transfer_jax.freezing.schedule import Schedule

QUARTER = 0.25
ENOUGH = 2500
"""Held-out images; an accuracy of 50 % on so many has a 95 % interval of 2 points either way."""
ENOUGH_OF_A_CLASS = 25
PROBE = 10
"""Training images a class below which only the head trains."""
SHALLOW = 50
"""Training images a class below which the top two blocks train, and a third of all from there on."""
_WHOLE = 1000
"""Training images from which on an accelerator trains the whole network."""
_VIEWS = 4
_BATCH, _LEAST_BATCH, _STEPS = 32, 8, 8
"""The batch of all measurements; the least; and steps that an epoch should have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known before anything is chosen.

    Attributes:
        counts: Images of each class that has any.
        own_split: Images to train and to evaluate on where the source is split already; None where it is not.
        pixels: Median of the images' shorter sides.
        expected: Side of the input that the weights expect, in pixels.
        blocks: Number of blocks of the network that have parameters.
        accelerator: Whether there is a GPU or TPU.
        duplicates: Images in groups of near duplicates; None where nobody looked.
    """

    counts: tuple[int, ...]
    own_split: tuple[int, int] | None
    pixels: int
    expected: int
    blocks: int
    accelerator: bool
    duplicates: int | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """One choice.

    Attributes:
        field: The field of the config that it is about, or what else is chosen.
        value: What was chosen.
        why: Why, with figures.
    """

    field: str
    value: Any
    why: str

    def __str__(self) -> str:
        return f"{self.field.replace('_', ' ')}: {self.value}; {self.why}"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)


def choose(
    facts: Facts, config: TrainConfig, given: Collection[str]
) -> tuple[TrainConfig, tuple[Choice, ...]]:
    """Chooses what was not given.

    Args:
        facts: What is known of the images, the network and the machine.
        config: What was given, and defaults.
        given: Names of the fields that were given; they stay as they are.

    Returns:
        The config to train, and the choices in the order of a run.
    """
    images = sum(facts.counts)
    held_out, choices = _split(facts, config, given)
    train = facts.own_split[0] if facts.own_split else images - held_out
    settings: dict[str, Any] = {choice.field: choice.value for choice in choices if choice.field != "split"}
    if "keep_together" not in given and facts.duplicates and not facts.own_split:
        settings["keep_together"] = True
        why = (
            f"{facts.duplicates:,} images have near duplicates, which must not be on both sides of the split"
        )
        choices.append(Choice("keep_together", True, why))
    if "image_size" not in given:
        settings["image_size"] = facts.expected
        choices.append(Choice("image_size", facts.expected, _about_pixels(facts)))
    if "schedule" not in given:
        settings["schedule"], why = _schedule(facts, train)
        choices.append(Choice("schedule", str(settings["schedule"]), why))
    if not {"batch_size", "accumulate"} & {*given}:
        settings["batch_size"], why = _batch(train)
        choices.append(Choice("batch_size", settings["batch_size"], why))
    return dataclasses.replace(config, **settings), tuple(choices)


def _split(facts: Facts, config: TrainConfig, given: Collection[str]) -> tuple[int, list[Choice]]:
    """How many images are held out, and the choice that says why, if it is one."""
    images, classes = sum(facts.counts), len(facts.counts)
    if facts.own_split is not None:
        train, held_out = facts.own_split
        why = f"{train:,} images to train and {held_out:,} to evaluate on; {_sureness(held_out)}"
        return held_out, [Choice("split", "the folder's own", why)]
    if "eval_fraction" in given:
        return math.ceil(config.eval_fraction * images), []
    enough = max(ENOUGH, ENOUGH_OF_A_CLASS * classes)
    fraction = min(QUARTER, max(math.ceil(100 * enough / images) / 100, 0.05))
    if math.ceil(fraction * images) < classes:  # At least one of each class.
        fraction = min(0.5, math.ceil(100 * classes / images) / 100)
    held_out = math.ceil(fraction * images)
    each = max(int(fraction * min(facts.counts)), 1)
    about = "about " if facts.duplicates else ""  # Near duplicates are drawn as one.
    what = f"{about}{held_out:,} of {images:,} images held out, {each:,} or more of a class"
    return held_out, [Choice("eval_fraction", fraction, f"{what}; {_sureness(held_out)}")]


def _sureness(held_out: int) -> str:
    """The 95 % interval of an accuracy of 80 %, by the normal approximation."""
    points = 196 * math.sqrt(0.16 / max(held_out, 1))
    return f"an accuracy of 80 % on them is known to {points:.1f} points either way"


def _about_pixels(facts: Facts) -> str:
    if facts.pixels * 2 <= facts.expected:
        return f"what the weights expect; your images have {facts.pixels} pixels, and are enlarged"
    return f"what the weights expect; your images have {facts.pixels} pixels"


def _schedule(facts: Facts, train: int) -> tuple[Schedule, str]:
    """A schedule and why; `train` is the number of training images."""
    each = train // len(facts.counts)
    if each < PROBE:
        images = f"{each} training image" + "s" * (each != 1)
        why = f"the head alone: {images} a class are too few to change the network by"
        return feature_extraction(), why
    if facts.accelerator and train >= _WHOLE:
        epochs = _epochs(train, most=20)
        why = f"the head, then all blocks, slower towards the input: {train:,} images on an accelerator"
        return layer_decay(0.85, learning_rate=3e-4, epochs=epochs, augment=True), why
    epochs = _epochs(train, most=14)
    count = 2 if each < SHALLOW else max(round(facts.blocks / 3), 2)
    schedule = five_steps(f"top({count})", epochs=epochs, views=min(_VIEWS, epochs))
    what = f"the head, then the top {count} of {facts.blocks} blocks"
    if each < SHALLOW:
        return (
            schedule,
            f"{what}: {each} training images a class are few, and more blocks learn them by heart",
        )
    return schedule, f"{what}: as good as all of them for as many epochs, at a third of the cost"


def _epochs(train: int, most: int) -> int:
    """Fewer where images are many: 14 times 2,000 images were seen in the measurements."""
    return min(most, max(2000 * most // train, 3))


def _batch(train: int) -> tuple[int, str]:
    if train >= _BATCH * _STEPS:
        return _BATCH, "what the learning rates of the recipes were tried with"
    batch = max(_LEAST_BATCH, 2 ** int(math.log2(max(train / _STEPS, 1))))
    return batch, f"of {train:,} training images, for more than a few steps an epoch"
