"""The environment of a run: software, machine and command, to repeat it."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import psutil

import transfer_jax
from transfer_jax.distributed import processes
from transfer_jax.extras import optional
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text

FILE = workdir_files.ENVIRONMENT

_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "scipy", "pillow")
_VARIABLES = (
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "JAX_PLATFORMS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
)
"""Environment variables that change what is computed."""


def write_environment(workdir: Path, command: Sequence[str] = (), *, images_given: bool = False) -> None:
    """Writes `environment.json` into a workdir if this is the first process; a failure is a warning.

    A resumed run overwrites it, so that it describes the last start.

    Args:
        workdir: The run's folder.
        command: The command line, word by word; empty if the run was started from Python.
        images_given: True if the images were passed as a dataset instead of named in the config.
    """
    if not processes.is_first():
        return
    with optional(FILE, "The report will not describe the software and the machine."):
        content = {**environment(), "command": list(command), "images_given": images_given}
        write_text(workdir / FILE, json.dumps(content, indent=1))


def images_given(workdir: Path) -> bool:
    """Returns whether a run was trained on a dataset object instead of the images that its config names."""
    try:
        return bool(json.loads((workdir / FILE).read_bytes()).get("images_given"))
    except (OSError, ValueError):
        return False


def environment() -> dict[str, Any]:
    """Returns the versions, devices and machine of this process."""
    devices = Counter((device.platform, device.device_kind) for device in jax.devices())
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {"transfer_jax": transfer_jax.__version__, **dict(_versions())},
        "machine": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": processes.cores(),
        "memory": psutil.virtual_memory().total,
        "devices": [
            {"platform": name, "kind": kind, "count": count} for (name, kind), count in devices.items()
        ],
        "processes": processes.count(),
        "variables": {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
