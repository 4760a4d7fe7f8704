"""Compiled steps, and the loop around them."""

from transfer_jax.training.api import fine_tune
from transfer_jax.training.averaging import greedy_soup, soup
from transfer_jax.training.fitting import fit
from transfer_jax.training.inference import classify
from transfer_jax.training.phase import NonFiniteLossError
from transfer_jax.training.result import PhaseResult, Result

__all__ = [
    "NonFiniteLossError",
    "PhaseResult",
    "Result",
    "classify",
    "fine_tune",
    "fit",
    "greedy_soup",
    "soup",
]
