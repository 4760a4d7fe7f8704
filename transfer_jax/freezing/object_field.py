"""Fields of a config that take a name or an object of Python."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from transfer_jax.fields import is_stored_object
from transfer_jax.freezing.optax_names import name_of_function
from transfer_jax.freezing.python_object import (
    PythonObject,
    import_object,
    is_importable,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectField:
    """A field that takes a name or an object of Python.

    Attributes:
        field: Name of the field.
        kind: The kind of its objects, for messages, such as `optimizer`.
        names: Names of this package.
        example: An example of a name of Optax.
        objects: The objects that it takes, in words.
        full_name: Returns the full name of a name of Optax, or raises a ValueError.
        suits: Returns True for an object that it takes.
        program: Returns the text of the program of such an object.
    """

    field: str
    kind: str
    names: tuple[str, ...]
    example: str
    objects: str
    full_name: Callable[[str], str]
    suits: Callable[[Any], bool]
    program: Callable[[Any], str]

    def read(self, value: Any) -> str | PythonObject:
        """Returns the value of the field for a name, an object, or what a config in JSON has in its place.

        Raises:
            ValueError: If it is none of these.
        """
        if isinstance(value, PythonObject):
            return value
        if is_stored_object(value):
            return PythonObject.from_json(value, self.kind, self.program)
        if isinstance(value, str):
            return str(value) if value in self.names else self._named(str(value))
        if not self.suits(value):
            raise ValueError(self._message(repr(value)))
        return name_of_function(value, self.full_name) or PythonObject(value, self.kind, self.program)

    def _named(self, name: str) -> str | PythonObject:
        if is_importable(name):
            found = import_object(name)
            if not self.suits(found):
                raise ValueError(self._message(f"{name}, which is {found!r}"))
            return PythonObject(found, self.kind, self.program, name)
        try:
            return self.full_name(name)
        except ValueError as error:
            raise ValueError(self._message(f"{name!r}: {error}")) from None

    def _message(self, got: str) -> str:
        names = ", ".join(map(repr, self.names))
        return (
            f"{self.field} must be one of {names}, a name of Optax such as {self.example!r}, a name such as "
            f"'package.module:name', or {self.objects}, got {got}"
        )


def takes(value: Any, *arguments: Any) -> bool:
    """Returns whether a value can be called with these arguments."""
    try:
        return callable(value) and inspect.signature(value).bind(*arguments) is not None
    except (TypeError, ValueError):  # It takes other arguments, or has no signature.
        return False
