"""Many runs that answer one question."""

from transfer_jax.studies.demo import COLUMNS, demo, table_rows

__all__ = ["COLUMNS", "demo", "table_rows"]
