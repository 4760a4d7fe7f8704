"""Searches for heads, tails and learning rates, and probes of features."""
