"""Many runs that answer one question."""

from transfer_jax.studies.demo import COLUMNS, demo, table_rows
from transfer_jax.studies.executors import starter
from transfer_jax.studies.presets import PRESETS, make_study
from transfer_jax.studies.runner import run_study
from transfer_jax.studies.study import Arm, Study

__all__ = [
    "COLUMNS",
    "PRESETS",
    "Arm",
    "Study",
    "demo",
    "make_study",
    "run_study",
    "starter",
    "table_rows",
]
