"""Tests on eight devices, in a process of their own: on few cores these make all other tests slower."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transfer_jax.distributed.sharding import _update_shards

FEW = "features and mesh or invalid_combinations or other_devices"


@pytest.mark.parametrize("chosen", [FEW, pytest.param(f"not ({FEW})", marks=pytest.mark.extended)])
def test_on_eight_devices(chosen):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    tests = Path(__file__).with_name("eight_devices.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, tests],
        env={**environment, "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.parametrize(("devices", "shards"), [(1, 1), (4, 4), (24, 12), (34, 2), (256, 16)])
def test_an_update_has_a_few_equal_shards(devices, shards):
    assert _update_shards(devices) == shards
