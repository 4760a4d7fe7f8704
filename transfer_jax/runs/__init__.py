"""Whole runs: `fit`, the loop over phases, checkpoints and prediction."""

from transfer_jax.runs.fit import fine_tune, fit
from transfer_jax.runs.model_soup import greedy_soup, soup
from transfer_jax.runs.predict import classify
from transfer_jax.runs.result import PhaseResult, Result

__all__ = ["PhaseResult", "Result", "classify", "fine_tune", "fit", "greedy_soup", "soup"]
