"""Optional packages, which the extras of `pip install 'transfer_jax[EXTRA]'` install."""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

_LOG = logging.getLogger(__name__)
_OPTIONAL = MappingProxyType(
    {
        "flatbuffers": ("flatbuffers", "export"),
        "gcsfs": ("gcsfs", "remote"),
        "h5py": ("h5py", "keras"),
        "jinja2": ("jinja2", "report"),
        "libtpu": ("libtpu", "pods"),
        "matplotlib": ("matplotlib", "report"),
        "mlflow": ("mlflow-skinny", "mlflow"),
        "onnx": ("onnx", "onnx"),
        "pyarrow": ("pyarrow", "study"),
        "python_multipart": ("python-multipart", "serve"),
        "ray": ("ray", "ray"),
        "s3fs": ("s3fs", "remote"),
        "sklearn": ("scikit-learn", "study"),
        "starlette": ("starlette", "serve"),
        "submitit": ("submitit", "slurm"),
        "tensorboardX": ("tensorboardX", "tensorboard"),
        "trackio": ("trackio", "trackio"),
        "uvicorn": ("uvicorn", "serve"),
        "vl_convert": ("vl-convert-python", "report"),
        "wandb": ("wandb", "wandb"),
    }
)
"""The package and the extra of each optional module."""
_MAX_REASON = 500
"""The largest number of characters of a reason in a warning."""


class MissingExtraError(ModuleNotFoundError):
    """An optional package is not installed; the message says how to install it."""


def require(*modules: str) -> None:
    """Checks that optional modules are installed; none is imported.

    Args:
        *modules: Names of the modules, such as `matplotlib`.

    Raises:
        MissingExtraError: If one is not installed.
    """
    for name in modules:
        if not is_installed(name):
            raise MissingExtraError(_message(name), name=name)


def is_installed(*modules: str) -> bool:
    """Returns True if optional modules are installed; none is imported."""
    return all(importlib.util.find_spec(name) is not None for name in modules)


def explain(error: BaseException) -> str:
    """Returns the message of an error in one line; for a missing optional module, how to install it."""
    module = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module in _OPTIONAL:
        return _message(module)
    return " ".join(str(error).split()) or type(error).__name__


class Attempt:
    """The result of the code inside `optional`.

    Attributes:
        error: The error that was logged; None if there was none.
    """

    error: Exception | SystemExit | None = None


@contextmanager
def optional(output: str, advice: str = "All other results are saved.") -> Iterator[Attempt]:
    """Logs an error as one line instead of raising it, for all that a run does not depend on.

    Plots, reports and trackers are used inside of this context only, so that none of them ends a run.
    Ctrl-C and SIGTERM are raised.

    Example:
        with optional("report.html"):
            write_run_report(workdir)

    Args:
        output: Name of the output that is missing after an error.
        advice: A sentence for the user: the consequence of the error, or how to make the output again.
    """
    attempt = Attempt()
    try:
        yield attempt
    except (Exception, SystemExit) as error:
        attempt.error = error
        kind = "" if isinstance(error, ModuleNotFoundError) else f"{type(error).__name__}: "
        reason = f"{kind}{explain(error)}".rstrip(".")
        _LOG.warning("%s", f"No {output}: {reason[:_MAX_REASON]}. {advice}".rstrip())


def _message(module: str) -> str:
    if module not in _OPTIONAL:
        return f"{module} is not installed; pip install {module}"
    package, extra = _OPTIONAL[module]
    return f"{package} is not installed; pip install 'transfer_jax[{extra}]'"
