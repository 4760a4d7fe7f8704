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

PLATFORMS = ("cuda", "rocm")


def lowered(run: Run) -> dict[str, str]:
    """Returns the text of the step of the first phase for each platform."""
    parts = run.parts(0)
    shapes = jax.eval_shape(lambda arrays: fresh_state(run, parts, arrays), dict(run.arrays))
    step = PhasePrograms(run, parts).functions["step"]
    traced = jax.jit(step).trace(*shapes, step_batch_shapes(run, parts), parts.rates(0), {})
    return {name: traced.lower(lowering_platforms=(name,)).as_text() for name in PLATFORMS}


@pytest.mark.parametrize(("trains", "precision"), [("head", "bfloat16"), ("all_()", "float32")])
def test_convolutions_are_those_of_the_platform(trains, precision, make_run):
    phase = Phase(name="a", train=trains, epochs=1, learning_rate=1e-3, cache="off")
    for text in lowered(make_run(phase, precision=precision)).values():
        assert text.count("stablehlo.convolution") >= 5  # Not the sums and products that suit a CPU.
        assert "stablehlo.while" not in text  # A CPU computes frozen blocks on two images at a time.
        assert "tpu_custom_call" not in text


def test_a_transformer(toy_images):
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
    for text in lowered(run).values():
        assert "tpu_custom_call" not in text
        assert "xbf16>" in text
        assert text.count("stablehlo.dot_general") >= 12 * 6
