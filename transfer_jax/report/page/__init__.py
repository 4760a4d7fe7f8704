"""Reports: one HTML file each, with all that it needs, made from the files of workdirs."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.report.page.comparison_page import write_comparison
    from transfer_jax.report.page.run_page import write_run_report
    from transfer_jax.report.page.search_page import is_search, write_search_report
    from transfer_jax.report.page.study_page import is_study, write_study_report

__all__ = [
    "is_search",
    "is_study",
    "write_comparison",
    "write_run_report",
    "write_search_report",
    "write_study_report",
]
__getattr__, __dir__ = lazy_names(__name__, __file__)
