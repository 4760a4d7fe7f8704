"""Objects of unknown classes in a PyTorch checkpoint, as inert data."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_NO_STATE: Mapping[Any, Any] = MappingProxyType({})


class Inert(dict[Any, Any]):
    """An object of an unknown class or function, which is neither found nor called.

    It is a dictionary, because many such classes are dictionaries: `defaultdict`, `Counter`, `EasyDict`,
    `AttributeDict`. Two objects are equal only if they are the same one.

    Attributes:
        name: The dotted name of the class or function.
        state: The object's attributes by name.
        of_tensors: Whether the object is made of tensors, such as a quantized tensor.
    """

    __slots__ = ("name", "of_tensors", "state")

    def __init__(self, name: str, *, of_tensors: bool = False) -> None:
        super().__init__()
        self.name = name
        self.state = _NO_STATE
        self.of_tensors = of_tensors

    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def is_module(self) -> bool:
        """True for a module: of `torch.save(model)`, or of TorchScript."""
        return "_modules" in self.state or self.name.startswith("__torch__.")

    def set_state(self, state: object) -> None:
        """Keeps the attributes of a pickled state; a state of another form is dropped."""
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.state = {**self.state, **part}
