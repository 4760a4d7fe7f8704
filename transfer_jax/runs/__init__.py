"""Whole runs: `fit`, the loop over phases, checkpoints and prediction."""

from transfer_jax.runs.fit import fit
from transfer_jax.runs.model_soup import greedy_soup, soup
from transfer_jax.runs.predict import classify
from transfer_jax.runs.result import PhaseResult, Result

__all__ = ["PhaseResult", "Result", "classify", "fit", "greedy_soup", "soup"]
