"""Former names of modules, which still work with a `DeprecationWarning`. Version 0.2 removes them."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = {
    "transfer_jax.data.images": "transfer_jax.data.decode",
    "transfer_jax.memory": "transfer_jax.malloc",
    "transfer_jax.models.functional": "transfer_jax.models.flat_arrays",
    "transfer_jax.training.pods": "transfer_jax.planning.topology",
    "transfer_jax.weights.naming": "transfer_jax.weights.key_mapping",
}
"""The module of today by former name."""
_NAMES = {
    "transfer_jax.data.images": {"look_at": "summarize_image"},
    "transfer_jax.weights.naming": {"Naming": "KeyMap"},
}
"""Names of today by former name, for modules whose names changed too."""


class FormerNames(MetaPathFinder, Loader):
    """The finder of modules by their former names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the specification of a module with a former name, or None for any other module."""
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        """Fills a module with the names of the module of today."""
        former = module.__name__
        warnings.warn(f"{former} is now {MODULES[former]}", DeprecationWarning, stacklevel=2)
        today = vars(importlib.import_module(MODULES[former]))
        vars(module).update({name: value for name, value in today.items() if not name.startswith("__")})
        vars(module).update({name: today[value] for name, value in _NAMES.get(former, {}).items()})


def install() -> None:
    """Makes the former names importable."""
    if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
        sys.meta_path.append(FormerNames())
