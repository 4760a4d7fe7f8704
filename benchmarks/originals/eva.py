"""EVA and EVA-02 in timm."""

from originals.original import Original, timm_network_of_size
from originals.vit import timm_module
from transfer_jax.models import eva

ORIGINALS = {(name, "timm"): Original(timm_network_of_size, timm_module) for name in eva.FAMILY.variants}
