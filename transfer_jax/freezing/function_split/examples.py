"""The place of a batch's examples in a variable of a program: an abstract value for each variable.

A variable is `PerExample` if each of its entries depends on one example at most, in a way that is the same
for all examples; `Shared` if it depends on none; and `Mixed` otherwise. Only variables that are
`PerExample` can be computed once for each example and cached.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class PerExample:
    """The examples are along an axis of size `outer * examples * inner`.

    The entry `(o, i, j)` of the axis, of shape `(outer, examples, inner)`, depends on example `i` only.

    Attributes:
        axis: The axis.
        outer: Number of entries before the examples, such as the windows of a Swin transformer.
        inner: Number of entries of one example.
    """

    axis: int
    outer: int = 1
    inner: int = 1

    def moved(self, axis: int) -> "PerExample":
        """Returns the same layout along another axis."""
        return dataclasses.replace(self, axis=axis)


@dataclasses.dataclass(frozen=True)
class Shared:
    """The variable depends on no example.

    Attributes:
        equal: Axes along which all entries are equal, because they were broadcast.
        layouts: Layouts of examples along whose example index all entries are equal, for axes that are not in
            `equal`.
    """

    equal: frozenset[int] = frozenset()
    layouts: frozenset[PerExample] = frozenset()


@dataclasses.dataclass(frozen=True)
class Mixed:
    """The variable may depend on several examples, or differently on each.

    Attributes:
        reason: The operation that mixes them, and how.
    """

    reason: str


Place = PerExample | Shared | Mixed
"""The place of the examples in a variable."""


class MixedError(Exception):
    """An operation that does not keep the examples of a batch apart; the message says why."""


def equal_axes(place: Shared, shape: tuple[int, ...]) -> set[int]:
    """Returns the axes along which a shared variable is constant."""
    return {*place.equal, *(axis for axis, size in enumerate(shape) if size == 1)}


def fits(place: Shared, shape: tuple[int, ...], layout: PerExample) -> bool:
    """Returns True if a shared variable has equal entries for all examples of a layout."""
    return not shape or layout.axis in equal_axes(place, shape) or layout in place.layouts


def common(places: list[Place], shapes: list[tuple[int, ...]]) -> PerExample:
    """Returns the layout that operands of the same shape have in common.

    Raises:
        MixedError: If two operands have their examples in different places, or a shared one differs between
            the examples.
    """
    layouts = {place for place in places if isinstance(place, PerExample)}
    if len(layouts) != 1:
        raise MixedError("has operands with the examples along different axes")
    layout = layouts.pop()
    for place, shape in zip(places, shapes, strict=True):
        if isinstance(place, Shared) and not fits(place, shape, layout):
            raise MixedError("uses a constant that differs between the positions of a batch")
    return layout


def reshaped(layout: PerExample, old: tuple[int, ...], new: tuple[int, ...], examples: int) -> PerExample:
    """Returns the layout after a reshape.

    Args:
        layout: The layout before.
        old: The shape before.
        new: The shape after.
        examples: Number of examples.

    Raises:
        MixedError: If no axis of the new shape contains the examples as a factor.
    """
    stride = layout.inner * math.prod(old[layout.axis + 1 :])
    for axis, size in enumerate(new):
        after = math.prod(new[axis + 1 :])
        if stride % after == 0 and (size * after) % (stride * examples) == 0 and size % examples == 0:
            return PerExample(axis, size * after // (stride * examples), stride // after)
    raise MixedError(f"reshapes {old} to {new}, which joins or divides the axis of the examples")


def joined(places: list[Place], shape: tuple[int, ...]) -> Place:
    """Returns the place of a variable that is one of several, such as the result of a branch."""
    for place in places:
        if isinstance(place, Mixed):
            return place
    layouts = {place for place in places if isinstance(place, PerExample)}
    shared = [place for place in places if isinstance(place, Shared)]
    if not layouts:
        equal = frozenset.intersection(*(place.equal for place in shared))
        return Shared(equal, frozenset.intersection(*(place.layouts for place in shared)))
    if len(layouts) > 1:
        return Mixed("branches or iterations have the examples along different axes")
    layout = layouts.pop()
    if not all(fits(place, shape, layout) for place in shared):
        return Mixed("a carried value differs between the positions of a batch")
    return layout
