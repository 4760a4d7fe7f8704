"""Pretrained weights: sources, file formats, loading and export."""

from transfer_jax.weights.loading import LoadReport, WeightsMismatchError, load_pretrained
from transfer_jax.weights.origin import WrongNetworkError
from transfer_jax.weights.specs import WeightsSpec, find_spec, specs

__all__ = [
    "LoadReport",
    "WeightsMismatchError",
    "WeightsSpec",
    "WrongNetworkError",
    "find_spec",
    "load_pretrained",
    "specs",
]
