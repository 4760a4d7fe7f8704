import logging

from transfer_jax.report.page import write_or_warn, write_run_report


def test_a_report_that_cannot_be_written_loses_nothing(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        write_or_warn(write_run_report, tmp_path)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the report of {tmp_path} is not written: FileNotFoundError: ")
    assert list(tmp_path.iterdir()) == []


def test_others_are_written(make_run, tmp_path, caplog):
    write_or_warn(write_run_report, make_run(tmp_path))
    assert (tmp_path / "report.html").exists()
    assert caplog.records == []
