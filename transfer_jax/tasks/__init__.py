"""Tasks: the kinds of targets, with their losses, predictions and scores."""

from transfer_jax.tasks.kinds import TASKS, TaskKind, check_classes, make_task, task_class, task_from_json
from transfer_jax.tasks.metric import Metric
from transfer_jax.tasks.multi_label import MultiLabel
from transfer_jax.tasks.ordinal import Ordinal
from transfer_jax.tasks.regression import Regression
from transfer_jax.tasks.single_label import SingleLabel
from transfer_jax.tasks.task import Task

__all__ = [
    "TASKS",
    "Metric",
    "MultiLabel",
    "Ordinal",
    "Regression",
    "SingleLabel",
    "Task",
    "TaskKind",
    "check_classes",
    "make_task",
    "task_class",
    "task_from_json",
]
