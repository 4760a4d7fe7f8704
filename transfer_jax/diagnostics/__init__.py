"""Diagnostics of finished runs: calibration, scores by group, changes of each block, saliency maps."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.diagnostics.calibration import reliability
    from transfer_jax.diagnostics.diagnosis import Diagnostics, diagnose
    from transfer_jax.diagnostics.redrawing import redraw
    from transfer_jax.diagnostics.sample_sizes import DIAGNOSTIC_NAMES, DiagnosticName, SampleSizes

__all__ = [
    "DIAGNOSTIC_NAMES",
    "DiagnosticName",
    "Diagnostics",
    "SampleSizes",
    "diagnose",
    "redraw",
    "reliability",
]
__getattr__, __dir__ = lazy_names(__name__, __file__)
