"""Trackers of experiments that a run may report to besides its own files, a file each."""

from transfer_jax.report.trackers.tracker import Tracker, scalars
from transfer_jax.report.trackers.trackers import TRACKERS, Trackers, check_installed

__all__ = ["TRACKERS", "Tracker", "Trackers", "check_installed", "scalars"]
