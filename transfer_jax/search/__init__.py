"""Searches: heads, tails and learning rates."""
