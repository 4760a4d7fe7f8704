"""Functions that know nothing of this package, for `split.py`: one module for each kind."""

from collections.abc import Callable, Iterator
from pathlib import Path

from strangers.adapted import biases, lora
from strangers.big_vision_vit import big_vision_vit
from strangers.case import Case, MissingError
from strangers.equimo_vit import equimo_vit
from strangers.flax_resnet import flax_resnet
from strangers.towers import towers
from strangers.unet import unet
from strangers.zoo import zoo_case
from transfer_jax.models.registry import FAMILIES

_LARGE = ("resnet152", "vit_large_patch16_224")


def strangers(
    examples: int, size: int, count: int, flax: Path | None, big_vision: Path | None
) -> dict[str, Callable[[], Case]]:
    """Returns the cases by name.

    Args:
        examples: Examples of a batch.
        size: Side of the images in pixels.
        count: Number of trainable blocks of our networks.
        flax: A checkout of Flax.
        big_vision: A checkout of big_vision.
    """

    def zoo() -> Iterator[tuple[str, Callable[[], Case]]]:
        for name in (*(next(iter(family.variants)) for family in FAMILIES), *_LARGE):
            yield name, lambda name=name: zoo_case(name, count, examples, size, computed=name not in _LARGE)

    return {
        **dict(zoo()),
        "Flax ResNet-50": lambda: flax_resnet(flax, examples, size),
        "big_vision ViT": lambda: big_vision_vit(big_vision, examples, size),
        "Equimo ViT": lambda: equimo_vit(examples, size),
        "two towers": lambda: towers(examples, size),
        "U-Net": lambda: unet(examples, size),
        "LoRA": lambda: lora(examples, size),
        "biases": lambda: biases(examples, size),
    }


__all__ = ["Case", "MissingError", "strangers"]
