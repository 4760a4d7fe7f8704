import os
import tempfile

import pytest

os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp())  # Read when the package is loaded.

from transfer_jax.report.trackers.trackio_run import open_run

trackio = pytest.importorskip("trackio", reason="trackio is not installed")
# Deprecations of the tracker's own dependencies are not errors here.
pytestmark = [pytest.mark.extended, pytest.mark.filterwarnings("ignore")]


def logs(name):
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage.get_logs("transfer_jax", name)


def test_a_run_is_logged_and_resumed(workdir, config, picture, capsys):
    first = open_run(workdir, config, None)
    first.log(1, {"train/loss": 1.0})
    first.close(finished=False)
    second = open_run(workdir, config, first.id)
    second.log(2, {"train/loss": 0.5, "train/accuracy": 0.75})
    second.log_image(2, picture)
    second.close(finished=True)
    assert first.id == second.id
    assert first.id.startswith("cells-")
    rows = logs(first.id)
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [(1, 1.0), (2, 0.5)]
    assert any("curves" in row for row in rows)
    assert capsys.readouterr().out == ""


def test_runs_in_folders_of_one_name_are_different(workdir, config):
    runs = [open_run(workdir, config, None) for _ in range(2)]
    for run in runs:
        run.close(finished=True)
    assert runs[0].id != runs[1].id
