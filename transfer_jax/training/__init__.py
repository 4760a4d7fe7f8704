"""One training step and one phase: loss, optimizer, state, checkpoints, compiled programs."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.training.loop_checkpoints import LoopCheckpoints
    from transfer_jax.training.phase_transition import next_phase
    from transfer_jax.training.state import TrainState
    from transfer_jax.training.step import make_train_step

__all__ = ["LoopCheckpoints", "TrainState", "make_train_step", "next_phase"]
__getattr__, __dir__ = lazy_names(__name__, __file__)
