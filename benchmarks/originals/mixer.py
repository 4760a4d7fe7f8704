"""MLP-Mixer in timm."""

from originals.original import Original, timm_network_of_size
from transfer_jax.models import mixer


def _module(name: str, block: str) -> str:
    """A network whose mean over patches is not a module."""
    return {"pre_logits": "head_drop"}.get(block, block)


ORIGINALS = {(name, "timm"): Original(timm_network_of_size, _module) for name in mixer.FAMILY.variants}
