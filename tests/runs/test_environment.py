import datetime
import json
import platform

import jax
import pytest

from transfer_jax import __version__
from transfer_jax.distributed import processes
from transfer_jax.runs.environment import environment, write_environment


def test_environment_has_software_machine_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    write_environment(tmp_path, ("transfer-jax", "train", "mine.py"), images_given=True)
    found = json.loads((tmp_path / "environment.json").read_text())
    assert found["command"] == ["transfer-jax", "train", "mine.py"]
    assert found["images_given"] is True
    assert (found["python"], found["cores"]) == (platform.python_version(), processes.cores())
    assert found["versions"]["transfer_jax"] == __version__
    assert found["versions"]["jax"] == jax.__version__
    assert found["variables"]["JAX_DEFAULT_MATMUL_PRECISION"] == "highest"
    assert sum(device["count"] for device in found["devices"]) == jax.device_count()
    begun = datetime.datetime.fromisoformat(found["time"])
    assert abs(datetime.datetime.now(datetime.UTC) - begun) < datetime.timedelta(minutes=1)


@pytest.mark.parametrize("name", ["HOME", "AWS_SECRET_ACCESS_KEY"])
def test_environment_has_no_other_variables(monkeypatch, name):
    monkeypatch.setenv(name, "a secret")
    assert "a secret" not in json.dumps(environment())
