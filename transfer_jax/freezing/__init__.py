"""What trains when."""

from transfer_jax.freezing.controllers import Measured, controller
from transfer_jax.freezing.freeze_check import FrozenChangedError
from transfer_jax.freezing.labels import FROZEN, boundary, labels, multi_transform, partition
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes import feature_extraction, five_steps, frozen_base
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.freezing.selectors import all_, between, blocks, depth, from_, head, match, role, top

__all__ = [
    "FROZEN",
    "FrozenChangedError",
    "Measured",
    "Phase",
    "Schedule",
    "all_",
    "between",
    "blocks",
    "boundary",
    "controller",
    "depth",
    "feature_extraction",
    "five_steps",
    "from_",
    "frozen_base",
    "head",
    "labels",
    "match",
    "multi_transform",
    "partition",
    "role",
    "top",
]
