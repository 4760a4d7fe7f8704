"""ResNet-50 of the ImageNet example of Flax (Linen), from a checkout of github.com/google/flax."""

import importlib.util
from pathlib import Path
from typing import Any

import jax

from strangers.case import Case, MissingError, images, random_like
from transfer_jax.freezing import labels, match
from transfer_jax.models.flax_functions import linen_function

COMMIT = "18f8f311c275d57f46d95e41b15aa97b454754c0"
"""The commit that the published figures are from."""


def flax_resnet(checkout: Path | None, examples: int, size: int) -> Case:
    """Returns ResNet-50 whose last block and classifier train, in inference mode.

    Args:
        checkout: Folder of the repository.
        examples: Examples of a batch.
        size: Side of the images in pixels.

    Raises:
        MissingError: If there is no checkout.
    """
    file = checkout and checkout / "examples/imagenet/models.py"
    if not file or not file.exists():
        raise MissingError(f"give --flax, a checkout of github.com/google/flax, such as {COMMIT}")
    module = _imported(file).ResNet50(num_classes=10)
    batch = {"image": images(examples, size)}
    variables = jax.jit(lambda: module.init(jax.random.key(0), batch["image"], train=False))()
    function, params, state = linen_function(module, variables, train=False)
    params = random_like(params)
    found = labels(params, match("BottleneckResNetBlock_15|Dense_0"))
    side = -(-size // 32)
    return Case("last block", function, params, found, batch, 4 * side * side * 2048, state)


def _imported(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("flax_imagenet_models", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
