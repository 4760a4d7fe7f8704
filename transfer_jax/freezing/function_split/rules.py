"""The registry of rules: for each primitive, the place of the examples in its results.

A rule is sound if it says `PerExample` only where each entry of a result depends on one example at most. A
primitive without a rule mixes the examples.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from transfer_jax.freezing.function_split.examples import MixedError, PerExample, Place


@dataclasses.dataclass(frozen=True)
class Operation:
    """An equation with the places of the examples in its operands.

    Attributes:
        name: Name of the primitive.
        parameters: Its parameters.
        places: The place of the examples in each operand; none is `Mixed`.
        shapes: The shape of each operand.
        results: The shape of each result.
        examples: Number of examples of the batch.
    """

    name: str
    parameters: dict[str, Any]
    places: list[Place]
    shapes: list[tuple[int, ...]]
    results: list[tuple[int, ...]]
    examples: int

    @property
    def layout(self) -> PerExample:
        """The layout of the first operand.

        Raises:
            MixedError: If the first operand is shared, so that the examples are in another operand.
        """
        place = self.places[0]
        if not isinstance(place, PerExample):
            raise MixedError("has the examples in an unsupported operand")
        return place


Rule = Callable[[Operation], list[Place]]
RULES: dict[str, Rule] = {}
"""The rule of each primitive for operands of which at least one is `PerExample`."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule for primitives."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register
