"""The networks by name."""

import difflib

import jax
from flax import nnx

from transfer_jax.models import efficientnet_lite
from transfer_jax.models.backbone import Backbone, Classifier, Head

_FAMILIES = (efficientnet_lite,)
"""Each has `VARIANTS`, whose entries end in (image size, dropout), and `build(name, rngs, drop_path)`."""

_FAMILY_OF = {name: family for family in _FAMILIES for name in family.VARIANTS}


def model_names() -> tuple[str, ...]:
    """The names that `create_model` knows."""
    return tuple(_FAMILY_OF)


def image_size_of(name: str) -> int:
    """The side, in pixels, of the images that a network was designed for."""
    return _family(name).VARIANTS[name][-2]


def create_model(
    name: str,
    num_classes: int,
    *,
    hidden: tuple[int, ...] = (),
    dropout: float | None = None,
    drop_path: float = 0.0,
    seed: int = 0,
    abstract_backbone: bool = False,
) -> Classifier:
    """Builds a classifier.

    Args:
        name: One of `model_names()`.
        num_classes: Number of classes of the head.
        hidden: Widths of hidden layers in the head.
        dropout: Dropout of the head; None takes the network's own.
        drop_path: Stochastic depth of the last block; those below it have less. Active in blocks that train.
        seed: Seed of the initial parameters.
        abstract_backbone: Leaves the backbone's arrays as shapes for `load_pretrained` to fill, so that no
            memory and no time is spent on initial values.

    Raises:
        ValueError: If no network has that name; the nearest names are given.
    """
    family = _family(name)

    def build(key: jax.Array) -> Backbone:
        return family.build(name, nnx.Rngs(key), drop_path=drop_path)

    backbone_key, head_key = jax.random.split(jax.random.key(seed))
    backbone = nnx.eval_shape(build, backbone_key) if abstract_backbone else nnx.jit(build)(backbone_key)
    rate = float(family.VARIANTS[name][-1]) if dropout is None else dropout
    head = Head(backbone.features, num_classes, hidden=hidden, dropout=rate, rngs=nnx.Rngs(head_key))
    return Classifier(backbone, head)


def _family(name: str):
    if name not in _FAMILY_OF:
        near = difflib.get_close_matches(name, _FAMILY_OF, n=3, cutoff=0.4) or list(_FAMILY_OF)[:3]
        raise ValueError(f"unknown model {name!r}; the nearest names are {', '.join(near)}")
    return _FAMILY_OF[name]
