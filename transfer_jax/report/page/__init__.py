"""Reports: one HTML file each, with all that it needs, made from the files of workdirs."""

from transfer_jax.report.page.comparison_page import write_comparison
from transfer_jax.report.page.guard import attempt
from transfer_jax.report.page.run_page import write_run_report
from transfer_jax.report.page.study_page import is_study, write_study_report

__all__ = ["attempt", "is_study", "write_comparison", "write_run_report", "write_study_report"]
