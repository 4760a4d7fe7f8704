import logging

from transfer_jax.training import outcome


def test_a_report_that_cannot_be_written_loses_no_run(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        outcome.report(tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "The run is whole, but its report could not be written: FileNotFoundError: "
        f"{tmp_path} is not the folder of a run: it has no config.json"
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_report_is_written_again_only_if_wanted(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(outcome, "write_run_report", written.append)
    (tmp_path / "report.html").write_text("")
    outcome.report(tmp_path, anew=False)
    assert written == []
    outcome.report(tmp_path)
    assert written == [tmp_path]
