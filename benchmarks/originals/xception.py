"""Xception in timm."""

from typing import Any

from originals.original import Original, timm_network


def _network(name: str, size: int) -> Any:
    return timm_network(f"legacy_{name}", size)


def _module(name: str, block: str) -> str:
    return {"pre_logits": "global_pool"}.get(block, block.replace("conv", "act"))


ORIGINALS = {("xception", "timm"): Original(_network, _module)}
