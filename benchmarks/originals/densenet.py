"""DenseNet in torchvision and timm."""

from originals.original import Original, timm_network, torchvision_network
from transfer_jax.models import densenet


def _torchvision(name: str, block: str) -> str:
    """The ReLU behind `norm5` is no module there."""
    known = {"stem": "features.pool0", "norm5": "", "pre_logits": ""}
    return known.get(block, f"features.{block}")


def _timm(name: str, block: str) -> str:
    known = {"stem": "features.pool0", "pre_logits": "global_pool"}
    return known.get(block, f"features.{block}")


ORIGINALS = {
    (name, library): Original(make, module)
    for library, (make, module) in {
        "torchvision": (torchvision_network, _torchvision),
        "timm": (timm_network, _timm),
    }.items()
    for name in densenet.FAMILY.variants
}
