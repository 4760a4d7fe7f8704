"""A program that loads an exported file in the library that it is for, and runs it on images.

It is started in a process of its own, because the library may be installed for another Python. It therefore
imports only NumPy and the library. Its argument is a folder with `job.json` (`load`, `module`, `runtime` and
`folder`) and `images.npy`; it writes `outputs.npy` and prints the version of the library.
"""

import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

MISSING = 3
"""Exit code if the library is not installed."""


def main(folder: Path) -> int:
    """Runs the job in a folder.

    Args:
        folder: The folder, an absolute path.

    Returns:
        The exit code.
    """
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.chdir(job["folder"])
    try:
        importlib.import_module(job["module"])
    except ModuleNotFoundError as error:
        if error.name != job["module"]:
            raise
        return MISSING
    scope: dict[str, Any] = {}
    exec(compile(job["load"], "load", "exec"), scope)
    outputs = RUN[job["runtime"]](scope["model"], np.load(folder / "images.npy"))
    np.save(folder / "outputs.npy", np.asarray(outputs, np.float32))
    (folder / "version").write_text(_version(job["module"]), encoding="utf-8")
    return 0


def _torch(model: Any, images: np.ndarray) -> Any:
    import torch

    with torch.inference_mode():
        outputs = model.eval()(torch.from_numpy(images))
    return getattr(outputs, "logits", outputs).numpy()


def _keras(model: Any, images: np.ndarray) -> Any:
    return model.predict(images, verbose=0)


def _onnxruntime(model: Any, images: np.ndarray) -> Any:
    (outputs,) = model.run(None, {model.get_inputs()[0].name: images})
    return outputs


def _function(model: Any, images: np.ndarray) -> Any:
    return model(images)


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return ""


RUN = {"torch": _torch, "keras": _keras, "onnxruntime": _onnxruntime, "function": _function}
"""The function that runs each kind of object."""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
