"""Searches for heads, tails and learning rates."""
