"""Traffic and cycles of small programs, whose traffic is known by hand."""
# ruff: noqa: E501

import pytest

from transfer_jax.planning.tpu_program import TpuProgram

ADD = """
%fused (p: f32[1024,2048]) -> f32[1024,2048] {
  %p = f32[1024,2048]{1,0:T(8,128)} parameter(0)
  %one = f32[]{:T(128)} constant(1)
  %ones = f32[1024,2048]{1,0:T(8,128)} broadcast(%one), dimensions={}
  ROOT %add = f32[1024,2048]{1,0:T(8,128)} add(%p, %ones)
}

ENTRY %main (x: f32[1024,2048]) -> f32[1024,2048] {
  %x = f32[1024,2048]{1,0:T(8,128)} parameter(0)
  ROOT %sum = f32[1024,2048]{1,0:T(8,128)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"610"}}
}
"""
ON_CHIP = """
ENTRY %main (x: bf16[512,512]) -> bf16[512,512] {
  %x = bf16[512,512]{1,0:T(8,128)(2,1)} parameter(0)
  %copy-start = (bf16[512,512]{1,0:T(8,128)(2,1)S(1)}, bf16[512,512]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%x)
  %copy-done = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %square = bf16[512,512]{1,0:T(8,128)(2,1)S(1)} multiply(%copy-done, %copy-done), backend_config={"estimated_cycles":"7"}
  ROOT %sum = bf16[512,512]{1,0:T(8,128)(2,1)} add(%square, %copy-done), backend_config={"estimated_cycles":"5"}
}
"""
LOOP = """
%slice (p: bf16[12,256,256], at: s32[]) -> bf16[256,256] {
  %p = bf16[12,256,256]{2,1,0:T(8,128)(2,1)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %part = bf16[1,256,256]{2,1,0:T(8,128)(2,1)} dynamic-slice(%p, %at), dynamic_slice_sizes={1,256,256}
  ROOT %flat = bf16[256,256]{1,0:T(8,128)(2,1)} bitcast(%part)
}

%matmul (q: bf16[256,256], w: bf16[12,256,256], i: s32[]) -> bf16[256,256] {
  %q = bf16[256,256]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %w = bf16[12,256,256]{2,1,0:T(8,128)(2,1)} parameter(1)
  %i = s32[]{:T(128)} parameter(2)
  %layer = bf16[256,256]{1,0:T(8,128)(2,1)} fusion(%w, %i), kind=kLoop, calls=%slice
  ROOT %product = bf16[256,256]{1,0:T(8,128)(2,1)S(1)} convolution(%q, %layer), dim_labels=bf_io->bf
}

%body (c: (s32[], bf16[256,256], bf16[12,256,256])) -> (s32[], bf16[256,256], bf16[12,256,256]) {
  %c = (s32[]{:S(2)}, bf16[256,256]{1,0:T(8,128)(2,1)S(1)}, bf16[12,256,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %n = s32[]{:S(2)} get-tuple-element(%c), index=0
  %x = bf16[256,256]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%c), index=1
  %all = bf16[12,256,256]{2,1,0:T(8,128)(2,1)} get-tuple-element(%c), index=2
  %y = bf16[256,256]{1,0:T(8,128)(2,1)S(1)} fusion(%x, %all, %n), kind=kOutput, calls=%matmul, backend_config={"estimated_cycles":"100"}
  ROOT %next = (s32[]{:S(2)}, bf16[256,256]{1,0:T(8,128)(2,1)S(1)}, bf16[12,256,256]{2,1,0:T(8,128)(2,1)}) tuple(%n, %y, %all)
}

%condition (d: (s32[], bf16[256,256], bf16[12,256,256])) -> pred[] {
  %d = (s32[]{:S(2)}, bf16[256,256]{1,0:T(8,128)(2,1)S(1)}, bf16[12,256,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %limit = s32[]{:S(2)} constant(12)
  %k = s32[]{:S(2)} get-tuple-element(%d), index=0
  ROOT %less = pred[]{:S(2)} compare(%k, %limit), direction=LT
}

ENTRY %main (start: (s32[], bf16[256,256], bf16[12,256,256])) -> (s32[], bf16[256,256], bf16[12,256,256]) {
  %start = (s32[]{:S(2)}, bf16[256,256]{1,0:T(8,128)(2,1)S(1)}, bf16[12,256,256]{2,1,0:T(8,128)(2,1)}) parameter(0)
  ROOT %while = (s32[]{:S(2)}, bf16[256,256]{1,0:T(8,128)(2,1)S(1)}, bf16[12,256,256]{2,1,0:T(8,128)(2,1)}) while(%start), condition=%condition, body=%body
}
"""
UPDATE = """
%write (p: f32[100,1024], row: f32[1,1024], at: s32[]) -> f32[100,1024] {
  %p = f32[100,1024]{1,0:T(8,128)} parameter(0)
  %row = f32[1,1024]{1,0:T(1,128)} parameter(1)
  %at = s32[]{:S(2)} parameter(2)
  %twice = f32[1,1024]{1,0:T(1,128)} add(%row, %row)
  ROOT %updated = f32[100,1024]{1,0:T(8,128)} dynamic-update-slice(%p, %twice, %at)
}

ENTRY %main (x: f32[100,1024], y: f32[1,1024], at: s32[]) -> f32[100,1024] {
  %x = f32[100,1024]{1,0:T(8,128)} parameter(0)
  %y = f32[1,1024]{1,0:T(1,128)} parameter(1)
  %at = s32[]{:S(2)} parameter(2)
  ROOT %done = f32[100,1024]{1,0:T(8,128)} fusion(%x, %y, %at), kind=kLoop, calls=%write
}
"""
PADDED = """
ENTRY %main (x: bf16[32,197,64]) -> bf16[32,197,64] {
  %x = bf16[32,197,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  ROOT %negated = bf16[32,197,64]{2,1,0:T(8,128)(2,1)} negate(%x)
}
"""
KERNEL = """
ENTRY %main (x: bf16[256,256]) -> bf16[256,256] {
  %x = bf16[256,256]{1,0:T(8,128)(2,1)} parameter(0)
  %kernel = bf16[256,256]{1,0:T(8,128)(2,1)} custom-call(%x), custom_call_target="tpu_custom_call"
  ROOT %sum = bf16[256,256]{1,0:T(8,128)(2,1)} all-reduce(%kernel), replica_groups={{0,1}}, to_apply=%add
}
"""


@pytest.mark.parametrize(
    ("text", "bytes", "cycles", "unknown"),
    [
        (ADD, 2 * 4 * 1024 * 2048, 610, 0),
        (ON_CHIP, 2 * 2 * 512 * 512, 12, 0),  # Read once and written once, the rest stays on the chip.
        (LOOP, 12 * 2 * 256 * 256, 12 * 100, 0),  # Each layer is read once.
        (UPDATE, 2 * 4 * 1024, 0, 0),  # A row is read, and written in place.
        (PADDED, 2 * 2 * 32 * 200 * 128, 0, 0),
        (KERNEL, 4 * 2 * 256 * 256, 0, 2),
    ],
    ids=["add", "on chip", "loop", "update", "padded", "kernel"],
)
def test_the_traffic_of_small_programs(text, bytes, cycles, unknown):
    found = TpuProgram(text).cost
    assert (found.hbm_bytes, found.cycles, found.without_cycles) == (bytes, cycles, unknown)


def test_instructions_add_up():
    program = TpuProgram(ON_CHIP)
    by_name = {each.name: cost for each, cost in program.costs()}
    assert by_name["copy-start"].hbm_bytes == by_name["sum"].hbm_bytes == 2 * 512 * 512
    assert sum(cost.cycles for cost in by_name.values()) == program.cost.cycles


def test_other_texts_raise():
    with pytest.raises(ValueError, match="it has no ENTRY"):
        TpuProgram("module {}")


def test_a_loop_without_a_limit_raises():
    with pytest.raises(ValueError, match="runs an unknown number of times"):
        _ = TpuProgram(LOOP.replace("constant(12)", "custom-call()")).cost
