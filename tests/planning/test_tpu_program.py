"""Traffic and cycles of small programs, whose traffic is known by hand."""
# ruff: noqa: E501

import pytest

from transfer_jax.planning.chips import CHIPS
from transfer_jax.planning.tpu_program import KERNEL_FLOPS, KERNEL_TRANSCENDENTALS, TpuProgram

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
DECLARED = KERNEL.replace(
    '"tpu_custom_call"',
    '"tpu_custom_call", backend_config={"custom_call_config":{"body":"A","cost_estimate":'
    '{"flops":"FLOPS","transcendentals":"EXPS","bytes_accessed":"BYTES"},"needs_layout_passes":true}}',
)
BITCAST = """
ENTRY %main (x: f32[16,128], y: f32[8,128]) -> (f32[16,128], f32[16,128]) {
  %x = f32[16,128]{1,0:T(8,128)} parameter(0)
  %y = f32[8,128]{1,0:T(8,128)} parameter(1)
  %first = f32[8,128]{1,0:T(8,128)} slice(%x), slice={[0:8], [0:128]}
  %both = f32[16,128]{1,0:T(8,128)S(1)} custom-call(%first, %y), custom_call_target="ConcatBitcast"
  %twice = f32[16,128]{1,0:T(8,128)} add(%both, %both), backend_config={"estimated_cycles":"3"}
  ROOT %results = (f32[16,128]{1,0:T(8,128)}, f32[16,128]{1,0:T(8,128)}) tuple(%twice, %x)
}
"""
SCATTER = """
%all-reduce-scatter (p: f32[8,128]) -> f32[2,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  %sum = f32[8,128]{1,0:T(8,128)} all-reduce(%p), replica_groups=[1,4]<=[4], to_apply=%add
  %at = s32[]{:T(128)} constant(0)
  ROOT %part = f32[2,128]{1,0:T(2,128)} dynamic-slice(%sum, %at, %at), dynamic_slice_sizes={2,128}
}

ENTRY %main (x: f32[8,128]) -> f32[2,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %part = f32[2,128]{1,0:T(2,128)} fusion(%x), kind=kCustom, calls=%all-reduce-scatter
}
"""
OVERLAPPED = """
%start (p: f32[2,128]) -> (f32[2,128], f32[8,128]) {
  %p = f32[2,128]{1,0:T(2,128)} parameter(0)
  %all = f32[8,128]{1,0:T(8,128)} all-gather(%p), channel_id=1, replica_groups=[1,4]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
  ROOT %begin = (f32[2,128]{1,0:T(2,128)}, f32[8,128]{1,0:T(8,128)}) custom-call(%all), custom_call_target="AsyncCollectiveStart"
}

%during (q: f32[2,128], r: f32[8,128], s: f32[16,128]) -> (f32[16,128], f32[2,128], f32[8,128]) {
  %q = f32[2,128]{1,0:T(2,128)} parameter(0)
  %r = f32[8,128]{1,0:T(8,128)} parameter(1)
  %s = f32[16,128]{1,0:T(8,128)} parameter(2)
  %same = f32[8,128]{1,0:T(8,128)} all-gather(%q), channel_id=1, replica_groups=[1,4]<=[4], dimensions={0}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
  %twice = f32[16,128]{1,0:T(8,128)} add(%s, %s)
  ROOT %results = (f32[16,128]{1,0:T(8,128)}, f32[2,128]{1,0:T(2,128)}, f32[8,128]{1,0:T(8,128)}) tuple(%twice, %q, %same)
}

ENTRY %main (x: f32[2,128], y: f32[16,128]) -> f32[16,128] {
  %x = f32[2,128]{1,0:T(2,128)} parameter(0)
  %y = f32[16,128]{1,0:T(8,128)} parameter(1)
  %begun = (f32[2,128]{1,0:T(2,128)}, f32[8,128]{1,0:T(8,128)}) fusion(%x), kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%start
  %one = f32[2,128]{1,0:T(2,128)} get-tuple-element(%begun), index=0
  %two = f32[8,128]{1,0:T(8,128)} get-tuple-element(%begun), index=1
  %work = (f32[16,128]{1,0:T(8,128)}, f32[2,128]{1,0:T(2,128)}, f32[8,128]{1,0:T(8,128)}) fusion(%one, %two, %y), kind=kCustom, output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}, calls=%during
  ROOT %done = f32[16,128]{1,0:T(8,128)} get-tuple-element(%work), index=0
}
"""
V5E = CHIPS["v5e"]


@pytest.mark.parametrize(
    ("text", "bytes", "cycles", "unknown"),
    [
        (ADD, 2 * 4 * 1024 * 2048, 610, 0),
        (ON_CHIP, 2 * 2 * 512 * 512, 12, 0),  # Read once and written once, the rest stays on the chip.
        (LOOP, 12 * 2 * 256 * 256, 12 * 100, 0),  # Each layer is read once.
        (UPDATE, 2 * 4 * 1024, 0, 0),  # A row is read, and written in place.
        (PADDED, 2 * 2 * 32 * 200 * 128, 0, 0),
        (KERNEL, 4 * 2 * 256 * 256, 0, 2),
        (BITCAST, 3 * 4 * 8 * 128 + 4 * 8 * 128, 3, 0),
    ],
    ids=["add", "on chip", "loop", "update", "padded", "kernel", "bitcast"],
)
def test_the_traffic_of_small_programs(text, bytes, cycles, unknown):
    found = TpuProgram(text).cost
    assert (found.hbm_bytes, found.cycles, found.without_cycles) == (bytes, cycles, unknown)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ADD, 2 * 4 * 1024 * 2048),
        (ON_CHIP, 2 * 2 * 512 * 512),
        (UPDATE, 4 * 1024 + 4 * 100 * 1024 + 4),  # The row, the index, and the whole array that is returned.
        (PADDED, 2 * 2 * 32 * 197 * 64),  # Padding is a choice of the compiler.
        (
            BITCAST,
            2 * 4 * 8 * 128 + 4 * 16 * 128,
        ),  # Half of `x`, `y` and one result; `x` is returned unchanged.
    ],
    ids=["add", "on chip", "update", "padded", "bitcast"],
)
def test_bytes_that_no_program_avoids(text, expected):
    assert TpuProgram(text).compulsory_bytes == expected


@pytest.mark.parametrize(
    ("flops", "exponentials", "moved", "cycles"),
    [
        (2**30, 2**20, 1, 2**30 / KERNEL_FLOPS + 2**20 / KERNEL_TRANSCENDENTALS),
        (1, 0, 819 * 10**6, 1e-3 * V5E.clock),
    ],
    ids=["by operations", "by bytes"],
)
def test_a_kernel_takes_the_longer_of_two_times(flops, exponentials, moved, cycles):
    text = (
        DECLARED.replace("FLOPS", str(flops)).replace("BYTES", str(moved)).replace("EXPS", str(exponentials))
    )
    found = TpuProgram(text, V5E).cost
    assert found.kernel_cycles == pytest.approx(cycles)
    assert (found.cycles, found.kernels, found.transfers, found.without_cycles) == (0, 1, 1, 1)
    assert TpuProgram(text, CHIPS["v5p"]).cost.kernel_cycles < cycles  # It has two cores.
    assert found.flops == flops


def test_operations_and_exchange_inside_of_computations_count():
    product = 2 * 256**3
    loop = LOOP.replace("%layer)", "%sum)").replace(
        "  ROOT %product",
        "  %sum = bf16[256,256]{1,0} all-reduce(%layer), replica_groups={{0,1}}, to_apply=%a\n  ROOT %product",
    )
    found = TpuProgram(loop).cost
    assert found.flops == 12 * product
    assert found.exchanged == 12 * 2 * 256 * 256
    assert TpuProgram(SCATTER).cost.exchanged == 3 / 4 * 4 * 8 * 128


def test_an_exchange_during_other_work_counts_once():
    """The array is read, gathered and written at the start; the fusion after it reads and writes only its own."""
    found = TpuProgram(OVERLAPPED).cost
    assert found.exchanged == 3 / 4 * 4 * 8 * 128
    assert found.hbm_bytes == 4 * 128 * (2 + 2 + 8) + 2 * 4 * 16 * 128


def test_instructions_add_up():
    program = TpuProgram(ON_CHIP)
    by_name = {each.name: cost for each, cost in program.costs()}
    assert by_name["copy-start"].hbm_bytes == by_name["sum"].hbm_bytes == 2 * 512 * 512
    assert sum(cost.cycles for cost in by_name.values()) == program.cost.cycles
    loop = {each.name: cost for each, cost in TpuProgram(LOOP).costs()}
    assert loop["y"] == TpuProgram(LOOP).cost


def test_other_texts_raise():
    with pytest.raises(ValueError, match="it has no ENTRY"):
        TpuProgram("module {}")


def test_a_loop_without_a_limit_raises():
    with pytest.raises(ValueError, match="runs an unknown number of times"):
        _ = TpuProgram(LOOP.replace("constant(12)", "custom-call()")).cost
