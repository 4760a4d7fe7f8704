"""Scans over stacked layers of which the first ones are frozen, as two scans."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from transfer_jax.freezing.function_split.jaxprs import (
    Atom,
    Equation,
    is_literal,
    scan_counts,
    shape_of,
    variable_like,
    variable_of_shape,
)

if TYPE_CHECKING:
    from transfer_jax.freezing.function_split.program import Program


def split_scan(program: "Program", scan: Equation, operands: list[Atom]) -> list[Atom] | None:
    """Appends two scans in place of one, the first over frozen layers only, and returns the results.

    It applies where each stacked operand that trains is a concatenation of a frozen and a trainable part
    along the layers, as `jnp.concatenate([frozen_layers, trainable_layers])` makes it.

    Args:
        program: The program that the scans are appended to.
        scan: The scan.
        operands: Its operands.

    Returns:
        The results of the scan, or None if it cannot be divided; nothing is appended then.
    """
    constants, carried_count = scan_counts(scan)
    first = constants + carried_count
    if scan.params["reverse"] or program.cause(operands[:first]) is not None:
        return None
    frozen = [_frozen_layers(program, atom) for atom in operands[first:]]
    length = scan.params["length"]
    boundary = min((length if count is None else count for count in frozen), default=length)
    if not 0 < boundary < length:
        return None
    carried, stacked = [*operands[constants:first]], []
    for start, stop in ((0, boundary), (boundary, length)):
        layers = [_layers(program, atom, start, stop) for atom in operands[first:]]
        results = [variable_like(each) for each in scan.outvars[:carried_count]]
        for each in scan.outvars[carried_count:]:
            results.append(variable_of_shape(each, (stop - start, *shape_of(each)[1:])))
        part = scan.replace(params={**scan.params, "length": stop - start})
        program.append(part, [*operands[:constants], *carried, *layers], results)
        carried = results[:carried_count]
        stacked.append(results[carried_count:])
    joined = [
        program.traced_inline(lambda one, other: jnp.concatenate([one, other]), one, other)
        for one, other in zip(*stacked, strict=True)
    ]
    return [*carried, *joined]


def _frozen_layers(program: "Program", atom: Atom) -> int | None:
    """Returns the number of the first layers of a stacked operand that are frozen; None if all are."""
    if program.cause([atom]) is None:
        return None
    count = 0
    for piece in _pieces(program, atom):
        if program.cause([piece]) is not None:
            break
        count += shape_of(piece)[0]
    return count


def _pieces(program: "Program", atom: Atom) -> list[Atom]:
    """Returns the parts of a concatenation of layers, or an empty list for anything else."""
    maker = None if is_literal(atom) else program.makers.get(atom)
    if maker is None or maker.primitive.name != "concatenate" or maker.params["dimension"] != 0:
        return []
    return list(maker.invars)


def _layers(program: "Program", atom: Atom, start: int, stop: int) -> Atom:
    """Returns layers of a stacked operand, without the layers that it is concatenated with where possible."""
    parts, position = [], 0
    for piece in _pieces(program, atom) or [atom]:
        size = shape_of(piece)[0]
        low, high = max(start - position, 0), min(stop - position, size)
        if low < high:
            whole = (low, high) == (0, size)
            parts.append(piece if whole else program.traced_inline(_slice(low, high), piece))
        position += size
    if len(parts) == 1:
        return parts[0]
    return program.traced_inline(lambda *pieces: jnp.concatenate(pieces), *parts)


def _slice(low: int, high: int):
    return lambda stacked: jax.lax.slice_in_dim(stacked, low, high)
