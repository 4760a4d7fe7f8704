"""The check of an exported file: the library that it is for loads it and computes the stored outputs."""

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from transfer_jax.weights import run_exported
from transfer_jax.weights.export_record import TOLERANCE, ExportRecord

_LAST_LINES = 3
"""Number of lines of an error of the library in a message."""


class VerificationError(ValueError):
    """The library cannot load an exported file, or computes other outputs."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """The result of a check.

    Attributes:
        library: The library and its version.
        difference: The largest difference of an output.
        tolerance: The largest difference that passes.
    """

    library: str
    difference: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"Verified with {self.library}: the largest difference of an output is {self.difference:.1e} "
            f"(up to {self.tolerance:.1e} passes, {TOLERANCE:g} of the largest output)"
        )


def verify_export(file: Path, record: ExportRecord, python: Path | None = None) -> Verification:
    """Loads an exported file in the library that it is for, in another process, and compares the outputs.

    Args:
        file: The file.
        record: Its record.
        python: The Python interpreter that has the library; None takes this one.

    Raises:
        VerificationError: If the library cannot load the file, or its outputs differ by more than
            `record.tolerance`.
        ImportError: If the library is not installed.
        ValueError: If the network's name in the library is unknown.
        OSError: If the interpreter cannot be started.
    """
    if not record.load:
        raise ValueError(
            f"{file} is not verified: the name of the network {record.model} in {record.target} is unknown"
        )
    interpreter = sys.executable if python is None else str(python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        job = {"load": record.load, "module": record.module, "runtime": record.runtime}
        job["folder"] = str(file.resolve().parent)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        np.save(folder / "images.npy", record.images())
        command = [interpreter, run_exported.__file__, str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if ran.returncode == run_exported.MISSING:
            raise ImportError(
                f"{file} is written but not verified: {record.module} is not installed for {interpreter}; "
                "install it, or give the Python that has it with --python"
            )
        if ran.returncode:
            reason = "\n".join(ran.stderr.strip().splitlines()[-_LAST_LINES:])
            raise VerificationError(f"{file} does not load with {record.module}: {reason}")
        found = np.load(folder / "outputs.npy")
        version = (folder / "version").read_text(encoding="utf-8")
    library = f"{record.module} {version}".rstrip()
    expected = np.array([record.outputs], np.float32)
    if found.shape != expected.shape:
        raise VerificationError(
            f"{file} with {library}: the outputs have the shape {found.shape}, not {expected.shape}"
        )
    difference = float(np.abs(found - expected).max())
    if not difference <= record.tolerance:  # Also if it is NaN.
        raise VerificationError(
            f"{file} computes other outputs with {library}: the largest difference is {difference:.1e}, and "
            f"up to {record.tolerance:.1e} passes ({TOLERANCE:g} of the largest output)"
            + (f". {record.note}" if record.note else "")
        )
    return Verification(library, difference, record.tolerance)
