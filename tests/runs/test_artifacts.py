import pytest

from transfer_jax.runs import artifacts


@pytest.mark.parametrize(("anew", "times"), [(False, 0), (True, 1)])
def test_a_report_is_written_again_only_if_wanted(tmp_path, monkeypatch, anew, times):
    written = []
    monkeypatch.setattr(artifacts, "write_run_report", written.append)
    (tmp_path / "report.html").write_text("")
    artifacts.report(tmp_path, anew=anew)
    assert written == [tmp_path] * times


def test_one_that_cannot_be_written_loses_no_run(tmp_path):
    artifacts.report(tmp_path)
    assert list(tmp_path.iterdir()) == []
