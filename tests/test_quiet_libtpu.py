import importlib.util
import os
import subprocess
import sys

import pytest

from transfer_jax import quiet_libtpu

NAMES = ("TPU_SKIP_MDS_QUERY", "TPU_ACCELERATOR_TYPE", "TPU_WORKER_HOSTNAMES", "TPU_STDERR_LOG_LEVEL")


@pytest.mark.parametrize("tpu", [False, True])
def test_variables_are_set_without_a_tpu_only(tpu, monkeypatch):
    monkeypatch.setattr(quiet_libtpu, "has_tpu", lambda: tpu)
    for name in NAMES:
        monkeypatch.setenv(name, "")  # So that it is restored afterwards.
        monkeypatch.delenv(name)
    monkeypatch.setenv(NAMES[1], "mine")
    quiet_libtpu.quiet_without_tpu()
    assert os.environ[NAMES[1]] == "mine"
    assert [name in os.environ for name in NAMES] == [not tpu, True, not tpu, not tpu]


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu, of the extra pods")
@pytest.mark.skipif(quiet_libtpu.has_tpu(), reason="needs a machine without a TPU")
def test_no_command_prints_errors_of_libtpu():
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    program = "import jax, transfer_jax.cli as c; c.main(['models', '--match', '*lite_tiny']); jax.devices()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert not [line for line in done.stderr.splitlines() if "counting parameters" not in line]
