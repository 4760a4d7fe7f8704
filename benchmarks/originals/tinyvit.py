"""TinyViT in timm."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from originals.original import Original, timm_network
from transfer_jax.models import tinyvit


class TinyVitOriginal(Original):
    """A network of timm whose blocks have the channels last in all stages but the first."""

    def outputs(self, network: Any, pixels: np.ndarray, modules: Mapping[str, str]) -> dict[str, np.ndarray]:
        found = super().outputs(network, pixels, modules)
        for block, array in found.items():
            if block.startswith("stages.") and "blocks" in block and not block.startswith("stages.0."):
                found[block] = array.transpose(0, 3, 1, 2)  # back from what was taken for channels first
        return found


def _module(name: str, block: str) -> str:
    return {"norm": "head.flatten", "pre_logits": "head.drop"}.get(block, block)


ORIGINALS = {(name, "timm"): TinyVitOriginal(timm_network, _module) for name in tinyvit.FAMILY.variants}
