"""The library `libtpu` on machines without a TPU."""

import os
from pathlib import Path

_QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def has_tpu() -> bool:
    """Returns whether this machine has a TPU."""
    return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def quiet_without_tpu() -> None:
    """Keeps `libtpu` from printing errors if it is installed on a machine without a TPU.

    It sets environment variables that are not set yet. Call it before JAX uses devices. Without it, `libtpu`
    asks a metadata server for its TPU and prints that there is none.
    """
    if not has_tpu():
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
