"""What fine-tuning did to a network, and how good it is where: on any finished run."""

from transfer_jax.diagnostics.calibration import reliability
from transfer_jax.diagnostics.diagnosis import PARTS, Diagnostics, Extent, Part, diagnose

__all__ = ["PARTS", "Diagnostics", "Extent", "Part", "diagnose", "reliability"]
