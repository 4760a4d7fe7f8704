"""Objects of Python in a config, such as an optimizer: their identity, and what a run stores of them."""

import functools
import hashlib
import importlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from transfer_jax.fields import is_stored_object
from transfer_jax.freezing.object_text import describe, importable_name, source_of

_PACKAGES = ("jax", "optax")
"""Packages whose versions may change the program of an object."""


class MissingObjectError(ValueError):
    """An object of a config is needed, and neither given nor importable."""


class PythonObject:
    """An object of Python in a config: an optimizer, a learning-rate schedule or a loss.

    Two of them are equal if their programs are equal, in any process. A config in JSON keeps the description,
    the source and the hash of the program, but not the object. A run that is resumed needs the object again:
    from the config that is given to `fit`, or from the module that it can be imported from.

    Args:
        value: The object.
        kind: `optimizer`, `learning-rate schedule` or `loss`, for messages.
        program: Returns the text of the program of an object.
        name: The name to import it by, such as `mypackage.optim:make`; empty if it has none, or the one that
            the object itself has.

    Attributes:
        kind: As above.
        name: As above.
    """

    def __init__(self, value: Any, kind: str, program: Callable[[Any], str], name: str = "") -> None:
        self.kind = kind
        self.name = name or importable_name(value)
        self._value = value
        self._program = program
        self._stored: Mapping[str, str] | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, str], kind: str, program: Callable[[Any], str]) -> "PythonObject":
        """Returns the object that `to_json` described; `value` imports it when it is needed."""
        found = cls(None, kind, program, stored["object"])
        found._stored = dict(stored)
        return found

    def to_json(self) -> dict[str, str]:
        """Returns the name, the description, the source and the hash of the program, as JSON values."""
        if self._stored is not None:
            return dict(self._stored)
        return {
            "object": self.name,
            "description": self.name or describe(self._value),
            "source": source_of(self._value),
            "digest": self.digest,
            "versions": _versions(),
        }

    @functools.cached_property
    def digest(self) -> str:
        """The hash of the program of the object."""
        if self._stored is not None:
            return self._stored["digest"]
        return hashlib.sha256(self._program(self._value).encode()).hexdigest()

    @functools.cached_property
    def value(self) -> Any:
        """The object.

        Raises:
            MissingObjectError: If it is from JSON, and has no name to import it by, or the import fails or
                returns an object that does something else.
        """
        stored = self._stored
        if stored is None:
            return self._value
        remedy = (
            "give the same object: call `fit` from the program that defines it, or "
            "`transfer-jax train FILE.py --workdir RUN` with the file of its config"
        )
        if not self.name:
            raise MissingObjectError(
                f"the {self.kind} {stored['description']} is an object of Python, of which a run keeps only "
                f"the description; {remedy}"
            )
        try:
            found = PythonObject(import_object(self.name), self.kind, self._program, self.name)
        except ValueError as error:
            raise MissingObjectError(f"the {self.kind} of the run is missing: {error}; {remedy}") from error
        if not same_object(stored, found.to_json()):
            raise MissingObjectError(
                f"the {self.kind} {self.name} has changed since the run started; {remedy}"
            )
        return found.value

    @property
    def is_available(self) -> bool:
        """True if `value` returns the object."""
        try:
            return self.value is not None
        except MissingObjectError:
            return False

    def __eq__(self, other: object) -> bool:
        return other is self or (isinstance(other, PythonObject) and self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __deepcopy__(self, memo: Any) -> "PythonObject":
        return self

    def __str__(self) -> str:
        return self._stored["description"] if self._stored else self.name or describe(self._value)

    def __repr__(self) -> str:
        return f"<{self.kind} {self}>"


def same_object(one: Any, other: Any) -> bool:
    """Returns whether two JSON values of a field are equal, or describe objects that do the same.

    The texts of a program in different versions of JAX and Optax differ. Then the descriptions and the
    sources are compared.
    """
    if not (is_stored_object(one) and is_stored_object(other)):
        return one == other
    if one["digest"] == other["digest"]:
        return True
    texts = ("object", "description", "source")
    return one["versions"] != other["versions"] and all(one[name] == other[name] for name in texts)


def is_importable(text: str) -> bool:
    """Returns True for a name such as `package.module:name`."""
    return re.fullmatch(r"[\w.]+:[\w.]+", text) is not None


def import_object(name: str) -> Any:
    """Imports an object by a name such as `package.module:name`, also from the current folder.

    Raises:
        ValueError: If there is no such module or name, or the module raises an error.
    """
    module, _, attribute = name.partition(":")
    try:
        found = _import_module(module)
        return functools.reduce(getattr, attribute.split("."), found)
    except AttributeError:
        raise ValueError(f"{name!r}: the module {module} has no {attribute!r}") from None
    except Exception as error:
        raise ValueError(f"{name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _import_module(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        folder = os.getcwd()
        if error.name != module.split(".")[0] or folder in sys.path:
            raise
        sys.path.append(folder)  # The command line does not look for modules in the current folder.
        importlib.invalidate_caches()
        return importlib.import_module(module)


def _versions() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
