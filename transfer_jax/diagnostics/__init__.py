"""What fine-tuning did to a network, and how good it is where: on any finished run."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.diagnostics.calibration import reliability
    from transfer_jax.diagnostics.diagnosis import (
        DIAGNOSTIC_NAMES,
        DiagnosticName,
        Diagnostics,
        SampleSizes,
        diagnose,
    )

__all__ = ["DIAGNOSTIC_NAMES", "DiagnosticName", "Diagnostics", "SampleSizes", "diagnose", "reliability"]
__getattr__, __dir__ = lazy_names(__name__, __file__)
