"""EfficientNet-Lite in timm, and in the package that its weights were converted for."""

import warnings
from typing import Any

from originals.original import CLASSES, Original, timm_network
from transfer_jax.models import efficientnet_lite

_NAMES = [f"efficientnet_lite{scale}" for scale in range(5)]


def _timm_network(name: str, size: int) -> Any:
    return timm_network(f"tf_{name}", size)


def _timm(name: str, block: str) -> str:
    known = {"stem": "bn1", "top": "bn2", "pre_logits": "global_pool"}
    if block in known:
        return known[block]
    depth = efficientnet_lite.FAMILY.variants[name].shape[1]
    return "blocks.{}.{}".format(*efficientnet_lite.stage_of(depth, int(block.removeprefix("blocks."))))


def _pytorch_network(name: str, size: int) -> Any:
    """A network whose stem and top share one activation; here it is part of their normalizations."""
    from torch.nn.functional import relu6

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import efficientnet_lite_pytorch

    network = efficientnet_lite_pytorch.EfficientNet.from_name(
        name.replace("_", "-"), image_size=size, num_classes=CLASSES
    )
    for norm in (network._bn0, network._bn1):
        norm.register_forward_hook(lambda *found: relu6(found[-1]))
    return network


def _pytorch(name: str, block: str) -> str:
    known = {"stem": "_bn0", "top": "_bn1", "pre_logits": "_avg_pooling"}
    return known.get(block, f"_{block}")


ORIGINALS = {
    **{(name, "timm"): Original(_timm_network, _timm) for name in _NAMES},
    **{(name, "efficientnet-pytorch"): Original(_pytorch_network, _pytorch) for name in _NAMES},
}
