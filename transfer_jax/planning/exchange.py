"""Bytes that a chip sends to other chips in a compiled program, with rings."""

import math
import re

from transfer_jax.planning.program_text import Instruction

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
"""Operations that exchange arrays between the chips of a slice."""

_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(?P<kind>\w+)"')
_GROUPS = re.compile(
    r"replica_groups=(?:\[\d+,(?P<size>\d+)\]|\{\{(?P<first>[\d,]+)\}"
    r"|mesh\[(?P<mesh>[^\]]*)\] \{(?P<axes>[^}]*)\})"
)
_AXIS = re.compile(r"'(\w+)'=(\d+)")


def is_transfer(each: Instruction) -> bool:
    """Returns True for an instruction that exchanges arrays with other chips or with the host."""
    return _collective(each) in COLLECTIVES or each.op in ("send", "recv")


def is_asynchronous(each: Instruction) -> bool:
    """Returns True for an exchange inside of a fusion that takes place during several fusions.

    Each of them has the instruction. Their `channel_id` does not tell which belong together: all may have 1.
    """
    return _collective(each) in COLLECTIVES and "async_collective_fusion_config" in each.rest


def sent_bytes(each: Instruction) -> float:
    """Returns the bytes that one chip sends to others of its slice in an instruction.

    In a ring of n chips, each sends (n - 1) / n of an array to gather or to scatter it, and twice as much to
    reduce it (Patarasuk and Yuan 2009). No other order sends less.
    """
    kind = _collective(each)
    if kind not in COLLECTIVES:
        return 0.0
    sizes = [array.unpadded for array in each.arrays]
    if each.op.endswith("-start") and kind != "all-reduce" and len(sizes) > len(each.operands):
        sizes = sizes[len(each.operands) : 2 * len(each.operands)]  # The tuple has the operands first.
    size = sum(sizes)
    if kind == "collective-permute":
        return size
    count = _group_size(each)
    part = (count - 1) / count
    return {
        "all-reduce": 2 * size * part,
        "all-gather": size * part,
        "reduce-scatter": size * count * part,
        "all-to-all": size * part,
    }[kind]


def sent_to_slices(each: Instruction, slices: int) -> float:
    """Returns the bytes that one chip sends to other slices in an instruction, with rings of slices.

    Args:
        each: The instruction; transfers between slices are sends to the host.
        slices: Number of slices.
    """
    found = _TRANSFER.search(each.rest) if each.op == "send" else None
    if found is None:
        return 0.0
    size = each.arrays[0].unpadded
    part = (slices - 1) / slices
    return {"ALL_REDUCE": 2 * size * part, "REDUCE_SCATTER": size * part}.get(found["kind"], size)


def _collective(each: Instruction) -> str:
    return each.op.removesuffix("-start")


def _group_size(each: Instruction) -> int:
    found = _GROUPS.search(each.rest)
    if found is None:
        raise ValueError(f"the program has a collective without groups: {each.name} {each.rest[:200]}")
    if found["size"]:
        return int(found["size"])
    if found["first"]:
        return found["first"].count(",") + 1
    sizes = {axis: int(size) for axis, size in _AXIS.findall(found["mesh"])}
    return math.prod(sizes[axis.strip(" '")] for axis in found["axes"].split(","))
