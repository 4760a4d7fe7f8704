"""MLflow; `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME` and its other variables count."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers.tracker import PROJECT

_AT_ONCE = 100
"""Parameters, or metrics, in one request."""
_LONGEST = 500
"""Characters of a parameter's value."""


class MLflow:
    """A run at MLflow.

    Args:
        client: An `mlflow.MlflowClient`.
        run_id: The run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.id = run_id
        self._client = client

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(name), value, now, step) for name, value in values.items()]
        for some in _parts(metrics):
            self._client.log_batch(self.id, metrics=some)

    def log_image(self, step: int, path: Path) -> None:
        self._client.log_artifact(self.id, str(path))

    def settings(self, config: Mapping[str, Any]) -> None:
        """Takes what the run was asked for."""
        from mlflow.entities import Param

        params = [Param(_key(name), str(value)[:_LONGEST]) for name, value in _flat(config)]
        for some in _parts(params):
            self._client.log_batch(self.id, params=some)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


def open_run(workdir: Path, config: Mapping[str, Any], known: str | None) -> MLflow:
    """Begins a run, or goes on with the one known."""
    from mlflow import MlflowClient

    client = MlflowClient()
    if known is not None:
        client.update_run(known, status="RUNNING")
        return MLflow(client, known)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    run = client.create_run(experiment_id, run_name=workdir.resolve().name)
    tracker = MLflow(client, run.info.run_id)
    tracker.settings(config)
    return tracker


def _key(name: str) -> str:
    """A name of the letters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield from _flat({str(index): each for index, each in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _parts(items: list) -> list[list]:
    return [items[first : first + _AT_ONCE] for first in range(0, len(items), _AT_ONCE)]
