"""Perception Encoder in timm."""

from originals.original import Original, timm_network_of_size
from originals.vit import timm_module
from transfer_jax.models import perception_encoder

ORIGINALS = {
    (name, "timm"): Original(timm_network_of_size, timm_module) for name in perception_encoder.FAMILY.variants
}
