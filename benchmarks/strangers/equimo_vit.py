"""ViT of Equimo (Equinox), from PyPI."""

import jax

from strangers.case import Case, MissingError, images, random_like
from transfer_jax.freezing import labels, match


def equimo_vit(examples: int, size: int) -> Case:
    """Returns ViT-Ti/16 whose last block, norm and classifier train.

    Args:
        examples: Examples of a batch.
        size: Side of the images in pixels.

    Raises:
        MissingError: If Equimo is not installed.
    """
    try:
        import equinox
        from equimo.vision.models.vit import vit_tiny_patch16_224
    except ImportError:
        raise MissingError("pip install equimo") from None
    model = vit_tiny_patch16_224(img_size=size, num_classes=10, key=jax.random.key(0))
    params, static = equinox.partition(model, equinox.is_inexact_array)

    def function(params, state, batch, key):
        network = equinox.combine(params, static)
        unused = jax.random.key(0)
        return jax.vmap(lambda image: network(image, key=unused, inference=True))(batch["image"])

    found = labels(params, match(r"blocks/0/blocks/11|^norm/|head"))
    tokens = 1 + (size // 16) ** 2
    batch = {"image": images(examples, size, channels_first=True)}
    return Case("last block", function, random_like(params), found, batch, 4 * tokens * 192)
