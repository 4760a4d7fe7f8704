import pytest

from transfer_jax.runs import artifacts


@pytest.mark.parametrize(("overwrite", "times"), [(False, 0), (True, 1)])
def test_a_report_is_overwritten_only_if_asked(tmp_path, monkeypatch, overwrite, times):
    written = []
    monkeypatch.setattr("transfer_jax.report.page.run_page.write_run_report", written.append)
    (tmp_path / "report.html").write_text("")
    artifacts.report(tmp_path, overwrite=overwrite)
    assert written == [tmp_path] * times


def test_a_report_that_fails_does_not_fail_the_run(tmp_path):
    artifacts.report(tmp_path)
    assert list(tmp_path.iterdir()) == []
