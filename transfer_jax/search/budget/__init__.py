"""The best model within a time: a search over networks, heads and schedules on shared features."""

from transfer_jax.search.budget.search_record import NetworkRecord, SearchRecord, TrialRecord
from transfer_jax.search.budget.train_within import train_within

__all__ = ["NetworkRecord", "SearchRecord", "TrialRecord", "train_within"]
