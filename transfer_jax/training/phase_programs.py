"""The compiled functions of a phase."""

import dataclasses
from typing import Any

import jax

from transfer_jax.config.loss_field import loss_function
from transfer_jax.freezing.labels import trainable_blocks
from transfer_jax.models import PRE_LOGITS
from transfer_jax.models.flat_arrays import with_training
from transfer_jax.training.cka import make_plasticity, make_similarity
from transfer_jax.training.compile import Compiled, compile_function
from transfer_jax.training.forward import Forward
from transfer_jax.training.gradient_statistics import make_measure
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.phase_split import PhaseSplit
from transfer_jax.training.phase_step import (
    StepOptions,
    make_eval_step,
    make_phase_gradients,
    make_phase_step,
    make_top_step,
)
from transfer_jax.training.run import Run

_BATCHES = {"step": 2, "measure": 2, "evaluate": 1, "top": 1}
"""Position of the batch among the arguments of a function."""


class PhasePrograms:
    """The functions of a phase, each compiled for the shapes of its first arguments.

    Args:
        run: The run.
        parts: The phase.

    Attributes:
        start: The boundary of its cached features; None if it trains on images.
        int8_boundary: The end of the frozen part that a step computes in int8; None if there is none.
        forward: The forward pass.
        options: The options of its training steps.
        functions: The functions by name before compilation: `step`, `measure`, `plasticity`, `similarity`,
            `evaluate` and `top`, which returns the most probable classes.
    """

    def __init__(self, run: Run, parts: PhaseSplit) -> None:
        run = run.at(parts.index)
        phase, config = parts.phase, run.config
        _check_offload(run)
        blocks = trainable_blocks(parts.labels)
        above = run.block_names[run.block_names.index(parts.boundary) + 1 if parts.boundary else 0 :]
        self.start = run.caching(phase, parts.boundary).boundary
        whole = not config.taps or parts.boundary == PRE_LOGITS  # Otherwise the head also reads blocks below.
        self.forward = Forward(
            graphdef=with_training(run.graphdef, run.arrays, blocks, norm=phase.norm),
            start=self.start,
            prefix=parts.boundary if self.start is None and whole else None,
            preprocessing=run.preprocessing,
            remat=config.remat,
            scan_layers=config.scan_layers,
            dtype=run.dtype,
            prefix_dtype=run.prefix_dtype,
        )
        self.int8_boundary = self.forward.prefix if run.int8 else None
        mixes = phase.augment and self.start is None
        self.options = StepOptions(
            task=run.task,
            class_weights=run.class_weights(),
            loss=loss_function(config.loss, run.task),
            label_smoothing=config.label_smoothing,
            mixup=config.augmentation.mixup if mixes else 0.0,
            cutmix=config.augmentation.cutmix if mixes else 0.0,
            accumulate=config.accumulate,
            ema_decay=config.ema_decay,
            l2_sp=phase.l2_sp,
            l2_head=phase.l2_head,
            feature_brightness=phase.feature_brightness,
            feature_flips=phase.feature_flips,
            group_lasso=phase.group_lasso,
            keep=phase.keep,
            exchanged=run.exchange_dtype,
        )
        optimizer, strategy = make_optimizer(phase, parts.labels), run.strategy
        gradients = make_phase_gradients(self.forward, dataclasses.replace(self.options, accumulate=1))
        merged = dataclasses.replace(self.forward, graphdef=run.graphdef)
        inference = dataclasses.replace(merged, prefix=PRE_LOGITS, prefix_dtype=run.dtype)
        self.functions = {
            "step": make_phase_step(self.forward, optimizer, self.options, strategy),
            "measure": make_measure(strategy.average(gradients, dtype=run.dtype), optimizer),
            "plasticity": make_plasticity(merged, blocks),
            "similarity": make_similarity(merged, above),
            "evaluate": strategy.each(make_eval_step(inference)),
            "top": strategy.each(make_top_step(inference)),
        }
        self._strategy, self._options = strategy, config.compiler_options
        self._compiled: dict[tuple[str, Any], Compiled] = {}

    @property
    def compile_seconds(self) -> float:
        """Seconds spent compiling so far."""
        return sum(each.seconds for each in self._compiled.values())

    @property
    def step(self) -> Compiled | None:
        """The compiled training step; None before it is compiled."""
        return self._compiled.get(("step", None))

    @property
    def count(self) -> int:
        """Number of compiled functions."""
        return len(self._compiled)

    def compiled(self, name: str, *args: Any, variant: Any = None) -> Compiled:
        """Returns a compiled function; the first call compiles it.

        Args:
            name: A name of `functions`; `step` reuses the memory of its input state.
            *args: Arguments of the function, or their shapes.
            variant: Distinguishes calls with arguments of different shapes, each of which is compiled.
        """
        if (name, variant) not in self._compiled:
            special = {"donate": (0,), "options": self._options} if name == "step" else {}
            self._compiled[name, variant] = compile_function(
                self.functions[name], *args, strategy=self._strategy, batch=_BATCHES.get(name), **special
            )
        return self._compiled[name, variant]


def _check_offload(run: Run) -> None:
    mesh = run.strategy.mesh
    platform = (jax.devices()[0] if mesh is None else mesh.devices.flat[0]).platform
    if run.config.remat == "offload" and platform == "cpu":
        raise ValueError("remat='offload' needs a TPU or a GPU, got cpu; choose 'dots' or 'block'")
