"""Many runs that answer one question."""

from transfer_jax.studies.demo import COLUMNS, demo, table_rows
from transfer_jax.studies.heads import HeadSearch, search_heads

__all__ = ["COLUMNS", "HeadSearch", "demo", "search_heads", "table_rows"]
