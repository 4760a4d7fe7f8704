"""The training steps, lowered for GPUs on a machine without one, as far as that is possible."""

import jax
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.distributed.sharding import Strategy
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.runs.resolve import resolve
from transfer_jax.training.background_compile import step_batch_shapes
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_trainer import fresh_state
from transfer_jax.training.run import Run


def lowered(run: Run, platform: str) -> str:
    """Returns the text of the step of the first phase for a platform."""
    parts = run.parts(0)
    state, frozen = fresh_state(run, parts, run.arrays)
    step = PhasePrograms(run, parts).functions["step"]
    traced = jax.jit(step).trace(state, frozen, step_batch_shapes(run, parts), parts.rates(0), {})
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("trains", ["head", "all_()"])
@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_convolutions_are_those_of_the_platform(platform, trains, precision, make_run):
    phase = Phase(name="a", train=trains, epochs=1, learning_rate=1e-3, cache="off")
    text = lowered(make_run(phase, precision=precision), platform)
    assert text.count("stablehlo.convolution") >= 5  # Not the products and sums that a CPU is faster with.
    assert "stablehlo.while" not in text  # A CPU computes frozen blocks on two images at a time.
    assert "tpu_custom_call" not in text


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_a_transformer(platform, toy_images):
    config = TrainConfig(
        images="toy",
        model="vit_tiny_patch16_224",
        weights="none",
        image_size=32,
        precision="bfloat16",
        batch_size=4,
        schedule=Schedule((Phase(name="a", train="top(2)", epochs=1, learning_rate=1e-3, cache="off"),)),
    )
    run = resolve(config, dataset=toy_images).abstract_run(Strategy.of("mesh", devices=jax.devices()[:1]))
    parts = run.parts(0)
    state, frozen = jax.eval_shape(lambda arrays: fresh_state(run, parts, arrays), dict(run.arrays))
    step = PhasePrograms(run, parts).functions["step"]
    traced = jax.jit(step).trace(state, frozen, step_batch_shapes(run, parts), parts.rates(0), {})
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "tpu_custom_call" not in text
    assert "xbf16>" in text
    assert text.count("stablehlo.dot_general") >= 12 * 6
