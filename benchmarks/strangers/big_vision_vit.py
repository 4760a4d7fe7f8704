"""ViT of big_vision (Linen): layers in a checkpointed `scan`, attention pooling; from a checkout."""

import importlib
import sys
import types
from pathlib import Path

import jax

from strangers.case import Case, MissingError, images, random_like
from transfer_jax.freezing import divide_layers, labels, match
from transfer_jax.models.flax_functions import linen_function

COMMIT = "0127fb6b337ee2a27bf4e54dea79cff176527356"
"""The commit that the published figures are from."""
_DEPTH, _TRAINED = 12, 3


def big_vision_vit(checkout: Path | None, examples: int, size: int) -> Case:
    """Returns ViT-Ti/16 whose last layers, pooling and classifier train.

    Args:
        checkout: Folder of the repository.
        examples: Examples of a batch.
        size: Side of the images in pixels.

    Raises:
        MissingError: If there is no checkout.
    """
    if checkout is None or not (checkout / "big_vision/models/vit.py").exists():
        raise MissingError(
            f"give --big-vision, a checkout of github.com/google-research/big_vision, such as {COMMIT}"
        )
    sys.path.insert(0, str(checkout))
    # The models use nothing of it, and it imports TensorFlow.
    sys.modules.setdefault("big_vision.utils", types.ModuleType("big_vision.utils"))
    vit = importlib.import_module("big_vision.models.vit")
    module = vit.Model(10, variant="Ti/16", pool_type="map", scan=True, head_zeroinit=False)
    batch = {"image": images(examples, size)}
    variables = jax.jit(lambda: module.init(jax.random.key(0), batch["image"]))()
    apply, params, state = linen_function(module, variables)

    def logits(params, state, batch, key):
        return apply(params, state, batch, key)[0][0]

    function, params = divide_layers(
        logits, random_like(params), "Transformer/encoderblock", _DEPTH - _TRAINED
    )
    found = labels(params, match("upper|encoder_norm|MAPHead_0|head"))
    tokens = (size // 16) ** 2
    return Case(f"last {_TRAINED} layers", function, params, found, batch, 4 * tokens * 192, state)
