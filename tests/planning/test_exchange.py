"""Bytes that a chip sends, by instruction, with rings."""

import pytest

from transfer_jax.planning.exchange import is_transfer, sent_bytes, sent_to_slices
from transfer_jax.planning.program_text import Instruction, parse_program


def instruction(line: str) -> Instruction:
    """Returns the instruction of a line."""
    computations, entry = parse_program(f"ENTRY %main (b: f32[2]) -> f32[2] {{\n  {line}\n}}\n")
    (found,) = computations[entry]
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%a = f32[10,4]{1,0:T(8)} all-reduce(%b), replica_groups=[2,4]<=[8], to_apply=%c", 2 * 160 * 3 / 4),
        ("%a = (f32[2]{0:T(128)S(1)}, bf16[3]{0}) all-reduce(%b, %c), replica_groups={{0,1},{2,3}}", 14),
        ("%a = (f32[2], /*index=1*/f32[2]) all-reduce(%b, %c), replica_groups=[1,2]<=[2]", 16),
        ("%a = f32[8]{0} all-gather-start(%b), replica_groups=mesh['x'=2,'y'=4] {'y'}", 32 * 3 / 4),
        ("%a = (f32[2], f32[8]) all-gather-start(%b), replica_groups=mesh['x'=2,'y'=4] {'x','y'}", 28),
        ("%a = f32[2]{0} reduce-scatter(%b), replica_groups=[1,4]<=[4]", 32 * 3 / 4),
        ("%a = f32[8] all-to-all(%b), replica_groups=[1,4]<=[4]", 32 * 3 / 4),
        ("%a = f32[8] collective-permute(%b), source_target_pairs={{0,1}}", 32),
        ("%a = (f32[8], f32[8], u32[], u32[]) collective-permute-start(%b), source_target_pairs={{0,1}}", 32),
        ("%a = f32[8] fusion(%all-reduce), kind=kLoop", 0),
    ],
    ids=[
        *("padded all-reduce", "two arrays", "index comments", "all-gather", "all-gather with operands"),
        *("reduce-scatter", "all-to-all", "permute", "permute with operands", "other"),
    ],
)
def test_bytes_of_collectives(line, expected):
    found = instruction(line)
    assert sent_bytes(found) == expected
    assert is_transfer(found) == (expected > 0)
    assert sent_to_slices(found, 2) == 0


def test_a_collective_without_groups_raises():
    with pytest.raises(ValueError, match="a collective without groups: a"):
        sent_bytes(instruction("%a = f32[8] all-reduce(%b), to_apply=%c"))


SEND = (
    "%a = (f32[256,8,128]{2,1,0:T(8,128)}, u32[]{:S(2)}, token[]) send(%b, %c), is_host_transfer=true, "
    'frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="KIND"}'
)


@pytest.mark.parametrize(
    ("line", "slices", "expected"),
    [
        (SEND.replace("KIND", "ALL_REDUCE"), 2, 2**20),
        (SEND.replace("KIND", "ALL_REDUCE"), 4, 1.5 * 2**20),
        (SEND.replace("KIND", "REDUCE_SCATTER"), 4, 0.75 * 2**20),
        (SEND.replace("KIND", "ONE_TO_ONE"), 4, 2**20),
        (SEND.replace("send(", "send-done("), 2, 0),
        ("%a = (f32[8], u32[], token[]) send(%b, %c), is_host_transfer=true", 2, 0),
    ],
    ids=["two slices", "four slices", "scattered", "one to one", "done", "to the host"],
)
def test_bytes_between_slices(line, slices, expected):
    found = instruction(line)
    assert sent_to_slices(found, slices) == expected
    assert sent_bytes(found) == 0
