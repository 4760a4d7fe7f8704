"""The library `libtpu` on machines without a TPU."""

import os
from pathlib import Path

_QUIET = (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    ("TPU_STDERR_LOG_LEVEL", "3"),
)


def has_tpu() -> bool:
    """Returns whether this machine has a TPU."""
    return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))


def quiet_without_tpu() -> None:
    """Keeps `libtpu` from printing errors if it is installed on a machine without a TPU.

    JAX loads an installed `libtpu`, which then asks a metadata server for its TPU and prints that there is
    none. Call this before JAX uses devices.
    """
    if not has_tpu():
        quiet_libtpu()


def quiet_libtpu() -> None:
    """Sets the environment variables that tell `libtpu` of a TPU, so that it does not look for one.

    Variables that are already set keep their values.
    """
    for name, value in _QUIET:
        os.environ.setdefault(name, value)
