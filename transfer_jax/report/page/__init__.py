"""Reports: one HTML file each, with all that it needs, made from the files of workdirs."""

from transfer_jax.report.page.attempt import attempt
from transfer_jax.report.page.compare import write_comparison
from transfer_jax.report.page.run import write_run_report
from transfer_jax.report.page.study import is_study, write_study_report

__all__ = ["attempt", "is_study", "write_comparison", "write_run_report", "write_study_report"]
