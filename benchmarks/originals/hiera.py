"""Hiera in timm and transformers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from originals.original import LABELS, Original, in_transformers, timm_network_of_size
from transfer_jax.models import hiera

_VARIANTS = hiera.FAMILY.variants


class TimmOriginal(Original):
    """A network of timm, whose tokens are sorted by windows; the outputs here are feature maps.

    The output of `embed` is the input of the module that sorts the tokens.
    """

    def outputs(self, network: Any, pixels: np.ndarray, modules: Mapping[str, str]) -> dict[str, np.ndarray]:
        import torch

        embedded: list[Any] = []
        hook = network.unroll.register_forward_pre_hook(lambda _, inputs: embedded.extend(inputs))
        found = super().outputs(network, pixels, modules)
        hook.remove()
        for block in found:
            if block.startswith("blocks."):
                tokens = torch.from_numpy(found[block])
                found[block] = network.reroll(tokens, int(block.split(".")[1])).numpy()
        return {"embed": embedded[0].numpy(), **found}


def _timm(name: str, block: str) -> str:
    return {"embed": "", "norm": "head.norm", "pre_logits": "head.norm"}.get(block, block)


def _transformers_network(name: str, size: int, kind: str) -> Any:
    import transformers

    shape = _VARIANTS[name].shape
    config = transformers.HieraConfig(
        image_size=(size, size),
        embed_dim=shape.width,
        depths=list(shape.depths),
        num_heads=[shape.heads << stage for stage in range(4)],
        id2label=LABELS,
    )
    return getattr(transformers, f"Hiera{kind}")(config)


def _base(name: str, block: str) -> str:
    if block in ("embed", "norm", "pre_logits"):
        return "" if block == "embed" else "pooler"
    stage, repeat = hiera.stage_of(_VARIANTS[name].shape, int(block.split(".")[1]))
    # The tokens of other stages are sorted by windows.
    return f"encoder.stages.{stage}.layers.{repeat}" if stage == 3 else ""


# A second size that is a multiple of the windows, as well.
ORIGINALS = {
    **{
        (name, "timm"): TimmOriginal(
            timm_network_of_size, _timm, odd=variant.preprocessing.image_size - 64, channels_last=True
        )
        for name, variant in _VARIANTS.items()
    },
    **in_transformers(
        "hiera",
        _transformers_network,
        _base,
        [name for name, variant in _VARIANTS.items() if not variant.shape.grid],
        odd=160,
    ),
}
