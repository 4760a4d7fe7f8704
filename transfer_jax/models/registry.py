"""The registry of networks: the function that creates a model by its name."""

import difflib

from transfer_jax.models import (
    aimv2,
    beit,
    clip,
    coatnet,
    convnext,
    densenet,
    dinov3,
    efficientnet,
    efficientnet_lite,
    eva,
    fastvit,
    ghostnet,
    hiera,
    inception,
    maxvit,
    mixer,
    mobilenet,
    mobilenetv4,
    naflex,
    perception_encoder,
    regnet,
    repvgg,
    res2net,
    resnest,
    resnet,
    resnetv2,
    seresnet,
    siglip,
    squeezenet,
    swin,
    swinv2,
    tinyvit,
    vgg,
    vit,
    xception,
)
from transfer_jax.models.backbone import Classifier, Head
from transfer_jax.models.family import Family, Setting, Variant
from transfer_jax.models.imported_family import imported_family, is_entry_point
from transfer_jax.nn.initializers import NumpyRngs, ShapeRngs

FAMILIES: tuple[Family, ...] = tuple(
    family.FAMILY
    for family in (
        efficientnet_lite,
        efficientnet,
        mobilenet,
        mobilenetv4,
        squeezenet,
        vgg,
        resnet,
        seresnet,
        resnest,
        res2net,
        resnetv2,
        regnet,
        repvgg,
        densenet,
        inception,
        xception,
        convnext,
        ghostnet,
        fastvit,
        vit,
        dinov3,
        eva,
        beit,
        clip,
        siglip,
        naflex,
        perception_encoder,
        aimv2,
        swin,
        swinv2,
        hiera,
        maxvit,
        coatnet,
        tinyvit,
        mixer,
    )
)
"""All families. `docs/adding_a_family.md` describes how to add one."""

_FAMILY_OF = {name: family for family in FAMILIES for name in family.variants}
_REGISTERED: dict[str, Family] = {}
"""The families that users registered, by the name of the network."""


def register_family(family: Family) -> None:
    """Makes the networks of a family available to `create_model`, configs and the command line.

    Args:
        family: The family; networks of the same names that were registered before are replaced.

    Raises:
        ValueError: If a name is that of a network of the package.
    """
    for name in family.variants:
        if name in _FAMILY_OF:
            raise ValueError(f"{name!r} is a network of this package; choose another name")
    _REGISTERED.update(dict.fromkeys(family.variants, family))


def model_names() -> tuple[str, ...]:
    """Returns the names of all networks, which `create_model` takes."""
    return tuple(_FAMILY_OF)


def variant_of(name: str) -> Variant:
    """Returns the variant of a network.

    Args:
        name: One of `model_names()`.

    Raises:
        ValueError: If no network has that name. The message lists the closest names.
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
    """Creates a classifier: a backbone and a new head.

    Args:
        name: One of `model_names()`.
        num_classes: Number of classes of the head.
        hidden: Widths of hidden layers in the head. The published classifier has `variant_of(name).hidden`.
        dropout: Dropout rate of the head; None takes that of the published classifier.
        drop_path: Rate of stochastic depth of the last block. It grows linearly from the first block, and
            applies to blocks in training mode.
        channels: Number of channels of the images.
        image_size: Side of the images in pixels, for networks with position embeddings; None takes that of
            the published weights.
        taps: Whether the head reads the pooled outputs of all blocks instead of the last block's output.
        seed: Seed of the initial parameters.
        abstract_backbone: Whether the backbone has shapes instead of arrays. `load_pretrained` fills them,
            and initial values cost neither time nor memory.
        abstract_head: Whether the head has shapes instead of arrays, for a classifier from a file.

    Raises:
        ValueError: If no network has that name (the message lists the closest names), or the image size is
            invalid for the network.
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
    """Returns the family of a network.

    Args:
        name: One of `model_names()`; the name of a registered model; or, for a function without arguments
            that returns the result of `own_model`, `package.module:function` or the name of an entry point.

    Raises:
        ValueError: As `variant_of`.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in _FAMILY_OF and (":" in name or is_entry_point(name)):
        register_family(imported_family(name))
        return _REGISTERED[name]
    if name not in _FAMILY_OF:
        near = difflib.get_close_matches(name, _FAMILY_OF, n=3, cutoff=0.4) or list(_FAMILY_OF)[:3]
        raise ValueError(
            f"unknown model {name!r}; the closest names are {', '.join(near)} "
            "(`transfer-jax models` lists all); a model of your own is package.module:function, or is "
            "registered with register_model"
        )
    return _FAMILY_OF[name]
