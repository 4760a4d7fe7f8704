"""Many runs that answer one question."""

from transfer_jax.studies.demo import COLUMNS, demo, table_rows
from transfer_jax.studies.heads import HeadSearch, search_heads
from transfer_jax.studies.places import starter
from transfer_jax.studies.ready import READY, make_study
from transfer_jax.studies.runner import run_study
from transfer_jax.studies.study import Arm, Study

__all__ = [
    "COLUMNS",
    "READY",
    "Arm",
    "HeadSearch",
    "Study",
    "demo",
    "make_study",
    "run_study",
    "search_heads",
    "starter",
    "table_rows",
]
