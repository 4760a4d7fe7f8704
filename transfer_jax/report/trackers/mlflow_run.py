"""MLflow; it reads `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and its other environment variables."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers.metric_keys import MetricKeys
from transfer_jax.report.trackers.tracker import PROJECT

_BATCH_SIZE = 100
"""The largest number of parameters or metrics in one request."""
_LONGEST_KEY = 250
"""The largest number of characters of a name of a parameter or metric."""
_MAX_LENGTH = 500
"""The largest number of characters of a parameter's value."""


class MLflow:
    """A run in MLflow.

    Args:
        client: An `mlflow.MlflowClient`.
        run_id: The id of the run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.id = run_id
        self._client = client
        self._key = MetricKeys(r"[^\w\-. /]", _LONGEST_KEY)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(self._key(name), value, now, step) for name, value in values.items()]
        for batch in _batches(metrics):
            self._client.log_batch(self.id, metrics=batch)

    def log_image(self, step: int, path: Path) -> None:
        self._client.log_artifact(self.id, str(path))

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Logs the config of the run."""
        from mlflow.entities import Param

        params = [Param(self._key(name), str(value)[:_MAX_LENGTH]) for name, value in _flatten(config)]
        for batch in _batches(params):
            self._client.log_batch(self.id, params=batch)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def open_run(workdir: Path, config: Mapping[str, Any], run_id: str | None) -> MLflow:
    """Starts a run, or continues the run with a known id."""
    from mlflow import MlflowClient

    client = MlflowClient()
    if run_id is not None:
        client.update_run(run_id, status="RUNNING")
        return MLflow(client, run_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    run = client.create_run(experiment_id, run_name=workdir.resolve().name)
    tracker = MLflow(client, run.info.run_id)
    tracker.log_config(config)
    return tracker


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield from _flatten({str(index): each for index, each in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _batches(items: list) -> list[list]:
    return [items[first : first + _BATCH_SIZE] for first in range(0, len(items), _BATCH_SIZE)]
