"""Studies: many runs that answer one question."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.studies.executors import starter
    from transfer_jax.studies.presets import PRESETS, make_study
    from transfer_jax.studies.runner import run_study
    from transfer_jax.studies.study import Arm, Study

__all__ = ["PRESETS", "Arm", "Study", "make_study", "run_study", "starter"]
__getattr__, __dir__ = lazy_names(__name__, __file__)
