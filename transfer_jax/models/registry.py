"""The networks by name."""

import difflib

from transfer_jax.models import (
    clip,
    convnext,
    densenet,
    efficientnet,
    efficientnet_lite,
    inception,
    mixer,
    mobilenet,
    regnet,
    resnet,
    resnetv2,
    siglip,
    squeezenet,
    swin,
    vgg,
    vit,
    xception,
)
from transfer_jax.models.backbone import Classifier, Head
from transfer_jax.models.family import Family, Setting, Variant
from transfer_jax.nn.initializers import NumpyRngs, ShapeRngs

FAMILIES: tuple[Family, ...] = tuple(
    family.FAMILY
    for family in (
        efficientnet_lite,
        efficientnet,
        mobilenet,
        squeezenet,
        vgg,
        resnet,
        resnetv2,
        regnet,
        densenet,
        inception,
        xception,
        convnext,
        vit,
        clip,
        siglip,
        swin,
        mixer,
    )
)
"""To add a family, write its file and add it here."""

_FAMILY_OF = {name: family for family in FAMILIES for name in family.variants}


def model_names() -> tuple[str, ...]:
    """The names that `create_model` knows."""
    return tuple(_FAMILY_OF)


def variant_of(name: str) -> Variant:
    """What is known of a network.

    Raises:
        ValueError: If no network has that name; the nearest names are given.
    """
    return family_of(name).variants[name]


def create_model(
    name: str,
    num_classes: int,
    *,
    hidden: tuple[int, ...] = (),
    dropout: float | None = None,
    drop_path: float = 0.0,
    channels: int = 3,
    image_size: int | None = None,
    taps: bool = False,
    seed: int = 0,
    abstract_backbone: bool = False,
    abstract_head: bool = False,
) -> Classifier:
    """Builds a classifier.

    Args:
        name: One of `model_names()`.
        num_classes: Number of classes of the head.
        hidden: Widths of hidden layers in the head. `variant_of(name).hidden` are those of the network's own.
        dropout: Dropout of the head; None takes the network's own.
        drop_path: Stochastic depth of the last block; those below it have less. Active in blocks that train.
        channels: Channels of the images.
        image_size: Side of the images in pixels, for networks with position embeddings; None takes the
            network's own.
        taps: Whether the head reads the outputs of all blocks, pooled, rather than of the last one.
        seed: Seed of the initial parameters.
        abstract_backbone: Leaves the backbone's arrays as shapes for `load_pretrained` to fill, so that no
            memory and no time is spent on initial values.
        abstract_head: The same for the head, where the classifier comes from a file too.

    Raises:
        ValueError: If no network has that name; the nearest names are given.
    """
    family, variant = family_of(name), variant_of(name)

    setting = Setting(
        rngs=ShapeRngs() if abstract_backbone else NumpyRngs(seed, 0),
        channels=channels,
        image_size=image_size or variant.preprocessing.image_size,
        drop_path=drop_path,
    )
    backbone = family.build(variant.shape, setting)
    if taps:
        backbone.tap(setting.image_size, channels)
    head = Head(
        backbone.features,
        num_classes,
        hidden=hidden,
        dropout=variant.dropout if dropout is None else dropout,
        rngs=ShapeRngs() if abstract_head else NumpyRngs(seed, 1),
    )
    return Classifier(backbone, head)


def family_of(name: str) -> Family:
    """The family of a network; errors are those of `variant_of`."""
    if name not in _FAMILY_OF:
        near = difflib.get_close_matches(name, _FAMILY_OF, n=3, cutoff=0.4) or list(_FAMILY_OF)[:3]
        raise ValueError(f"unknown model {name!r}; the nearest names are {', '.join(near)}")
    return _FAMILY_OF[name]
