"""Bytes that the instructions of a TPU program read from and write to the high-bandwidth memory (HBM).

`cost_analysis()["bytes accessed"]` of a TPU program counts operands and results in every memory, though most
activations stay in the memory on the chip (VMEM). Here an instruction reads its operands and writes its
results where their layout names no other memory than the high-bandwidth memory, with the padding of tiles. A
fusion that only slices an operand reads the slice. One that updates a slice of an operand writes the slice.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

from transfer_jax.planning.program_text import Instruction, by_name

_ALIASED = "output_to_operand_aliasing"
_SLICES = ("dynamic-slice", "slice", "gather")


class HbmTraffic:
    """The traffic of the instructions of a program.

    Args:
        computations: The instructions of all computations by name.
        continued: Returns whether an instruction of a fusion, given with the name of its body, continues an
            exchange that another fusion has started; such an instruction moves nothing again.
    """

    def __init__(
        self,
        computations: Mapping[str, list[Instruction]],
        continued: Callable[[Instruction, str], bool],
    ) -> None:
        self._computations, self._continued = computations, continued

    def of(self, each: Instruction, known: Mapping[str, Instruction]) -> float:
        """Returns the bytes that an instruction reads from and writes to the high-bandwidth memory."""
        operands = [known[name] for name in dict.fromkeys(each.operands) if name in known]
        if each.op == "copy-start":
            return operands[0].hbm_bytes + sum(array.bytes for array in each.arrays[:1] if array.in_hbm)
        if each.op in ("slice-start", "async-start"):
            return self._started(each, operands)
        if each.op in _SLICES:
            return 2 * each.hbm_bytes if operands and operands[0].hbm_bytes else each.hbm_bytes
        if each.op == "dynamic-update-slice":
            update = sum(array.bytes for array in operands[1].arrays)
            return operands[1].hbm_bytes + update * bool(each.hbm_bytes)
        if each.op == "fusion":
            return self._fused(each, known)
        return each.hbm_bytes + sum(operand.hbm_bytes for operand in operands)

    def compulsory(self, entry: str) -> float:
        """Returns the bytes that every program with the same arguments and results moves, without padding.

        Each argument is in the memory before the step and each result after it: parameters, optimizer state
        and batch are read once, new parameters and optimizer state are written once. An argument that is
        returned unchanged does not count, and of one that is only sliced the slices count.

        Args:
            entry: The name of the entry computation.
        """
        known = by_name(self._computations[entry])
        (root,) = (each for each in known.values() if each.root)
        results = [known[name] for name in root.operands] if root.op == "tuple" else [root]
        written = (each for each in results if _behind_bitcasts(each, known).op != "parameter")
        total = sum(array.unpadded for each in written for array in each.arrays if array.in_hbm)
        arguments = (each for each in known.values() if each.op == "parameter")
        return total + sum(self._read_of(each, known) for each in arguments)

    def _started(self, each: Instruction, operands: list[Instruction]) -> float:
        """Returns the traffic of an asynchronous slice or computation, which moves its smallest array."""
        sizes = [array for array in each.arrays if array.bytes > 1024]
        if not sizes:
            return 0.0
        moved = min(sizes, key=lambda array: array.bytes)
        return moved.bytes * (bool(operands and operands[0].hbm_bytes) + moved.in_hbm)

    def _fused(self, each: Instruction, known: Mapping[str, Instruction]) -> float:
        body = each.called["calls"]
        updated, written = self._written(each, body)
        total = written
        for place, name in enumerate(each.operands):
            operand = known.get(name)
            if operand is not None and operand.hbm_bytes and place not in updated:
                total += min(operand.hbm_bytes, self._read(body, place))
        return total

    def _read_of(self, argument: Instruction, known: Mapping[str, Instruction]) -> float:
        """Returns the bytes of an argument of the program that it reads at least once, without padding."""
        size, total = sum(array.unpadded for array in argument.arrays), 0.0
        for each in known.values():
            if argument.name not in each.operands or (each.root and each.op == "tuple"):
                continue
            if each.op == "bitcast":
                total += self._read_of(dataclasses.replace(each, arrays=argument.arrays), known)
            elif each.op == "fusion":
                total += self._read(each.called["calls"], each.operands.index(argument.name))
            elif each.op in _SLICES and each.operands[0] == argument.name:
                total += sum(array.unpadded for array in each.arrays)
            elif each.op == "slice-start":
                total += min(array.unpadded for array in each.arrays if array.shape)
            elif each.op != "dynamic-update-slice" or each.operands[0] != argument.name:
                return size
        return min(size, total)

    def _read(self, body: str, place: int) -> float:
        """Returns the bytes of a parameter that a fusion reads: those of slices, if it only slices it."""
        total, names = 0.0, {_parameter(self._computations[body], place)}
        for inner in self._computations[body]:
            if not names.intersection(inner.operands) or self._continued(inner, body):
                continue
            if inner.root and inner.op == "tuple":
                continue  # A result that is a parameter, see `_written`.
            if inner.op == "bitcast":
                names.add(inner.name)
            elif inner.op == "fusion":
                places = [at for at, name in enumerate(inner.operands) if name in names]
                total += sum(self._read(inner.called["calls"], at) for at in places)
                if self._passes(inner.called["calls"], places):
                    names.add(inner.name)
            elif inner.op in _SLICES and inner.operands[0] in names:
                total += sum(array.bytes for array in inner.arrays)
            elif inner.op != "dynamic-update-slice" or inner.operands[0] not in names:
                return math.inf
        return total

    def _passes(self, body: str, places: list[int]) -> bool:
        """Returns True if the result of a fusion is one of some parameters, unchanged."""
        inside = by_name(self._computations[body])
        root = next(inner for inner in inside.values() if inner.root)
        passed = _behind_bitcasts(root, inside)
        return passed.op == "parameter" and passed.number in places

    def _written(self, fusion: Instruction, body: str) -> tuple[set[int], float]:
        """Returns the positions of operands that a fusion updates in place, and the bytes that it writes."""
        inside = by_name(self._computations[body])
        root = next(inner for inner in inside.values() if inner.root)
        results = [inside[each] for each in root.operands] if root.op == "tuple" else [root]
        if len(results) != len(fusion.arrays):
            return set(), fusion.hbm_bytes
        places: set[int] = set()
        total = 0.0
        for result, array in zip(results, fusion.arrays, strict=True):
            made = _behind_bitcasts(result, inside)
            if made.op == "dynamic-update-slice":
                target = _behind_bitcasts(inside[made.operands[0]], inside)
                if target.op == "parameter" and target.number is not None:
                    places.add(target.number)
                total += sum(each.bytes for each in inside[made.operands[1]].arrays) * array.in_hbm
            elif made.op == "parameter" and _ALIASED in fusion.rest:
                places.add(made.number or 0)
            elif not self._continued(made, body):
                total += array.bytes * array.in_hbm
        return places, total


def _parameter(body: list[Instruction], place: int) -> str:
    """Returns the name of the parameter at a position."""
    return next((each.name for each in body if each.op == "parameter" and each.number == place), "")


def _behind_bitcasts(each: Instruction, known: Mapping[str, Instruction]) -> Instruction:
    while each.op == "bitcast":
        each = known[each.operands[0]]
    return each
