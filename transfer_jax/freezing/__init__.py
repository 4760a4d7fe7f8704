"""Freezing: selectors, labels, phases, schedules, recipes, and checks of frozen parameters."""

from typing import TYPE_CHECKING

from transfer_jax.freezing.labels import labels  # At once: its module has the same name.
from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.freezing.controllers import Measured, controller
    from transfer_jax.freezing.freeze_check import FreezeRecord, FrozenChangedError, frozen_unchanged
    from transfer_jax.freezing.function_split import Split, blocks_by_depth, divide_layers, split_frozen
    from transfer_jax.freezing.labels import boundary, multi_transform
    from transfer_jax.freezing.phase import Phase
    from transfer_jax.freezing.recipes import feature_extraction, five_steps, frozen_base
    from transfer_jax.freezing.schedule import Schedule
    from transfer_jax.freezing.selectors import all_, between, blocks, depth, from_, head, match, role, top
    from transfer_jax.freezing.trees import FROZEN, combine, leaves_by_path, partition

__all__ = [
    "FROZEN",
    "FreezeRecord",
    "FrozenChangedError",
    "Measured",
    "Phase",
    "Schedule",
    "Split",
    "all_",
    "between",
    "blocks",
    "blocks_by_depth",
    "boundary",
    "combine",
    "controller",
    "depth",
    "divide_layers",
    "feature_extraction",
    "five_steps",
    "from_",
    "frozen_base",
    "frozen_unchanged",
    "head",
    "labels",
    "leaves_by_path",
    "match",
    "multi_transform",
    "partition",
    "role",
    "split_frozen",
    "top",
]
__getattr__, __dir__ = lazy_names(__name__, __file__)
