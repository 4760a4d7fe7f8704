"""Experiment trackers that a run can report to, in addition to its own files."""

from transfer_jax.report.trackers.tracker import Tracker, scalars
from transfer_jax.report.trackers.trackers import TRACKERS, Trackers, check_installed

__all__ = ["TRACKERS", "Tracker", "Trackers", "check_installed", "scalars"]
