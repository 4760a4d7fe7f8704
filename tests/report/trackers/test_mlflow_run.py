import pytest

from transfer_jax.report.trackers.mlflow_run import open_run

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
# Deprecations of MLflow's own dependencies are not errors here.
pytestmark = [pytest.mark.extended, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """The default database of MLflow."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def history(run_id, name):
    return [(each.step, each.value) for each in mlflow.MlflowClient().get_metric_history(run_id, name)]


def test_metrics_config_and_images_can_be_read_back(workdir, config, picture):
    tracker = open_run(workdir, config, None)
    tracker.log(3, {"train/loss": 0.5, "evaluation/per_class/a (b)/f1": 0.75})
    tracker.log(6, {"train/loss": 0.125, **{f"train/rates/{index}": 1.0 * index for index in range(300)}})
    tracker.log_image(6, picture)
    tracker.close(finished=True)
    client = mlflow.MlflowClient()
    run = client.get_run(tracker.id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "cells")
    assert client.get_experiment(run.info.experiment_id).name == "transfer_jax"
    assert history(tracker.id, "train/loss") == [(3, 0.5), (6, 0.125)]
    assert history(tracker.id, "train/rates/299") == [(6, 299.0)]
    assert history(tracker.id, "evaluation/per_class/a _b_/f1") == [(3, 0.75)]
    assert run.data.params["images"] == "elpv"
    assert run.data.params["schedule.phases.0.train"] == "head"
    assert [file.path for file in client.list_artifacts(tracker.id)] == ["curves.png"]


def test_a_resumed_run_is_the_same(workdir, config, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "solar")
    first = open_run(workdir, config, None)
    first.log(1, {"train/loss": 1.0})
    first.close(finished=False)
    client = mlflow.MlflowClient()
    assert client.get_run(first.id).info.status == "KILLED"
    second = open_run(workdir, config, first.id)
    assert (second.id, client.get_run(first.id).info.status) == (first.id, "RUNNING")
    second.log(2, {"train/loss": 0.5})
    second.close(finished=True)
    assert history(first.id, "train/loss") == [(1, 1.0), (2, 0.5)]
    experiment = client.get_experiment_by_name("solar")
    assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [first.id]
