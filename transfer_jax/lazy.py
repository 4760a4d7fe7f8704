"""Public names of a package that are imported when they are first used (PEP 562)."""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` for an `__init__.py` that imports its names lazily.

    The names and their modules are read from the `if TYPE_CHECKING:` block of that file, which type checkers
    and editors read too. A name must differ from the names of the package's modules: once a module is
    imported, Python binds its name in the package.

    Example:
        if TYPE_CHECKING:
            from transfer_jax.data.arrays import from_arrays

        __all__ = ["from_arrays"]
        __getattr__, __dir__ = lazy_names(__name__, __file__)

    Args:
        package: The package's `__name__`.
        file: The package's `__file__`.
    """
    modules = _names_for_type_checkers(Path(file).read_text(encoding="utf-8"))

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names


def _names_for_type_checkers(source: str) -> dict[str, str]:
    """Returns the module of each name that a file imports in its `if TYPE_CHECKING:` block."""
    return {
        alias.name: str(imported.module)
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for imported in block.body
        if isinstance(imported, ast.ImportFrom)
        for alias in imported.names
    }
