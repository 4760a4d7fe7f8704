"""Networks of this package as plain functions of flat dictionaries."""

import jax
import jax.numpy as jnp

from strangers.case import Case, images
from transfer_jax.freezing import boundary, labels, top
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import merge, split


def zoo_case(name: str, count: int, examples: int, size: int, computed: bool = True) -> Case:
    """Returns a network whose head and last `count` blocks train.

    Args:
        name: Name of the network.
        count: Number of blocks.
        examples: Examples of a batch.
        size: Side of the images in pixels.
        computed: Whether its parameters have values.
    """
    model = create_model(name, 10, abstract_backbone=not computed)
    model.eval()
    graphdef, params, statistics = split(model)
    names = model.backbone.block_names
    found = labels(params, top(count), names)
    last = boundary(found, names)
    assert last is not None

    def function(params, state, batch, key):
        return merge(graphdef, {**params, **state})(batch["image"]), state

    like = jax.ShapeDtypeStruct((examples, size, size, 3), jnp.float32)
    at_block = jax.eval_shape(
        lambda arrays, image: merge(graphdef, arrays).backbone(image, stop=last),
        {**params, **statistics},
        like,
    )
    return Case(
        trains=f"top({count})",
        function=function,
        params=params,
        labels=found,
        batch={"image": images(examples, size) if computed else like},
        block_bytes=4 * at_block.size // examples,
        state=statistics,
        computed=computed,
    )
