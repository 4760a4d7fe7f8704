"""Imports go one way: cli -> studies -> runs -> planning -> training -> features, freezing, data … -> nn."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import transfer_jax

ROOT = Path(transfer_jax.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if "configs" not in path.relative_to(ROOT).parts)
LAYERS = [  # each part may import those in lower lines, and its own modules
    {"__init__", "__main__"},
    {"cli"},
    {"commands"},
    {"serving"},
    {"studies"},
    {"search", "diagnostics"},
    {"runs"},
    {"planning"},
    {"training"},
    {"own_models"},
    {"config"},
    {"features", "adapters"},
    {"freezing", "data", "weights", "report"},
    {"storage"},
    {"distributed"},
    {"models"},
    {"nn", "malloc", "former_names", "lazy", "extras", "fields", "user_cache", "quiet_libtpu", "tasks"}
    | {"counted"},
]
ONLY = {  # who alone may import a library
    "orbax": ("storage/checkpoint_files.py",),
    "tensorflow_datasets": ("data/",),
    "grain": ("data/",),
    "array_record": ("data/",),
    "s3fs": (),
    "gcsfs": (),
    "PIL": ("data/", "report/misclassified.py"),
    "safetensors": (
        "weights/readers/",
        "weights/saved_model.py",
        "weights/adapter_files.py",
        "weights/peft/",
        "weights/export.py",
        "weights/writers.py",
    ),  # these write
    "pickle": ("weights/readers/", "data/readers.py"),
    "zipfile": ("weights/readers/", "report/class_scores.py"),
    "tensorstore": ("weights/readers/",),
    "h5py": ("weights/readers/", "weights/writers.py"),
    "onnx": ("weights/onnx_", "weights/export.py"),
    "matplotlib": ("report/",),
    "jinja2": ("report/page/html.py",),
    "vl_convert": ("report/page/vega.py", "report/page/static_chart.py"),
    "rich": ("report/", "commands/", "cli.py"),
    "tyro": ("commands/", "cli.py"),
    "huggingface_hub": ("weights/hub.py", "weights/hub_folder.py", "weights/hub_upload.py"),
    "starlette": ("serving/",),
    "uvicorn": ("serving/server.py",),
    "pyarrow": (
        "data/remote/",
        "studies/table.py",
        "report/page/study_files.py",
        "report/prediction_files.py",
        "report/predictions.py",
    ),
    "submitit": ("studies/executors.py",),
    "ray": ("studies/executors.py",),
    "tensorboardX": ("report/trackers/",),
    "wandb": ("report/trackers/",),
    "mlflow": ("report/trackers/",),
    "trackio": ("report/trackers/",),
}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def lazy_imports(path: Path) -> list[str]:
    """The names that an `__init__.py` imports for type checkers only."""
    blocks = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If)]
    imported = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return [alias.asname or alias.name for node in imported for alias in node.names]


LAZY = [path for path in FILES if path.name == "__init__.py" and "lazy_names(__name__" in path.read_text()]
"""The packages whose names are imported when they are first used."""


def part_of(module: str) -> str:
    """The part of the package that a module such as `transfer_jax.data.image_files` is in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and any(parts[1] in layer for layer in LAYERS) else "__init__"


def layer_of(part: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def own_part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_go_down_the_layers(path):
    part = own_part(path)
    for module in imports(path):
        if module.split(".")[0] != "transfer_jax" or module == "transfer_jax":
            continue
        other = part_of(module)
        if part == other or module.split(".")[1:2] == ["__version__"]:
            continue
        assert layer_of(other) > layer_of(part), f"{named(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_libraries_stay_where_they_belong(path):
    for module in imports(path):
        places = ONLY.get(module.split(".")[0])
        assert places is None or named(path).startswith(places), f"{named(path)} imports {module}"


@pytest.mark.parametrize("path", [path for path in FILES if own_part(path) == "freezing"], ids=named)
def test_freezing_knows_models_as_names_and_trees(path):
    known = {module for module in imports(path) if module.startswith("transfer_jax.models.")}
    plain = ("flat_arrays", "paths", "adapters.adapter")
    assert all(module.removeprefix("transfer_jax.models.").startswith(plain) for module in known)
    assert not any(module.startswith("flax") for module in imports(path))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_library_code_never_prints(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{named(path)}:{node.lineno}"


def test_every_part_has_its_layer():
    assert {own_part(path) for path in FILES} == set.union(*LAYERS)


@pytest.mark.parametrize("name", transfer_jax.__all__)
def test_public_names_are_there(name):
    assert getattr(transfer_jax, name) is not None


@pytest.mark.parametrize("path", LAZY, ids=named)
def test_lazy_names_are_public_and_not_those_of_modules(path):
    package = importlib.import_module(".".join(["transfer_jax", *path.relative_to(ROOT).parent.parts]))
    lazy = lazy_imports(path)
    assert lazy
    assert set(lazy) <= set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    modules = {each.stem for each in path.parent.iterdir()}
    assert not set(lazy) & modules, "a module of the same name hides the name once it is imported"
    with pytest.raises(AttributeError, match="has no attribute 'teapot'"):
        getattr(package, "teapot")  # noqa: B009


PROGRAM = """
import sys
import transfer_jax
first = set(sys.modules)
from transfer_jax import fit
print(*{name.split(".")[0] for name in first}, "|", *{name.split(".")[0] for name in sys.modules})
"""


def test_importing_the_package_imports_no_heavy_library():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=600
    )
    first, with_fit = (set(part.split()) for part in done.stdout.split("|"))
    heavy = {"pyarrow", "sklearn", "matplotlib", "jinja2", "tensorflow_datasets"}
    assert not (heavy | {"jax", "scipy"}) & first
    assert not heavy & with_fit
    assert "jax" in with_fit
