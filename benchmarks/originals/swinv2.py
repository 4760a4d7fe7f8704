"""Swin transformers V2 in torchvision, timm and transformers."""

from typing import Any

from originals import swin
from originals.original import LABELS, Original, in_transformers, timm_network_of_size, torchvision_network
from transfer_jax.models import swinv2

_VARIANTS = swinv2.FAMILY.variants
_TORCHVISION = {f"swinv2_{size}_window8_256": f"swin_v2_{size[0]}" for size in ("tiny", "small", "base")}


class TorchvisionOriginal(Original):
    """A network of torchvision. Its keys have biases that it does not use; they are zero in its files."""

    def randomized(self, name: str, size: int) -> Any:
        import torch

        network = super().randomized(name, size)
        with torch.no_grad():
            for key, tensor in network.state_dict().items():
                if key.endswith("qkv.bias"):
                    tensor.chunk(3)[1].zero_()
        return network


def _torchvision_network(name: str, size: int) -> Any:
    return torchvision_network(_TORCHVISION[name], size)


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    config = transformers.Swinv2Config(
        image_size=size,
        embed_dim=shape.width,
        depths=list(shape.depths),
        num_heads=list(shape.heads),
        window_size=shape.window,
        pretrained_window_sizes=list(shape.pretrained),
        id2label=LABELS,
    )
    return getattr(transformers, f"Swinv2{kind}")(config)


# timm and transformers are compared where their windows need no padding, at half the native size; torchvision
# where no feature map is smaller than a window.
ORIGINALS = {
    **{
        (name, "timm"): Original(
            timm_network_of_size, swin.timm, odd=variant.preprocessing.image_size // 2, channels_last=True
        )
        for name, variant in _VARIANTS.items()
    },
    **{
        (name, "torchvision"): TorchvisionOriginal(
            _torchvision_network, swin.torchvision, odd=289, channels_last=True
        )
        for name in _TORCHVISION
    },
    **{
        case: original
        for name, variant in _VARIANTS.items()
        for case, original in in_transformers(
            "swinv2",
            _transformers_network,
            swin.base,
            [name],
            odd=variant.preprocessing.image_size // 2,
        ).items()
    },
}
