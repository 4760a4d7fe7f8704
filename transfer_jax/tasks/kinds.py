"""The kinds of tasks by name."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from transfer_jax.tasks.multi_label import MultiLabel
from transfer_jax.tasks.ordinal import Ordinal
from transfer_jax.tasks.regression import Regression
from transfer_jax.tasks.single_label import SingleLabel
from transfer_jax.tasks.task import Task, read_names

TaskKind = Literal["single_label", "multi_label", "regression", "ordinal"]

TASKS: dict[str, type[Task]] = {each.kind: each for each in (SingleLabel, MultiLabel, Regression, Ordinal)}
"""The classes of tasks by the name of their kind."""


def make_task(kind: str, names: Sequence[str]) -> Task:
    """Returns a task without constants from examples.

    Args:
        kind: `single_label`, `multi_label`, `regression` or `ordinal`.
        names: The classes, labels or quantities.

    Raises:
        ValueError: If there is no such kind.
    """
    if kind not in TASKS:
        raise ValueError(f"the task must be one of {', '.join(TASKS)}, got {kind!r}")
    return TASKS[kind](tuple(names))


def task_class(scores: Mapping[str, Any]) -> type[Task]:
    """Returns the class of the task that scores belong to; those of earlier versions are of single labels."""
    return TASKS[scores.get("task", SingleLabel.kind)]


def check_classes(task: Task, purpose: str) -> None:
    """Raises `ValueError` if a task has no classes that exclude each other.

    Args:
        task: The task.
        purpose: The work that needs one class for each example, such as "a study".
    """
    if not isinstance(task, SingleLabel):
        raise ValueError(f"{purpose} needs one class for each example, and the task is {task.kind}")


def task_from_json(values: Mapping[str, Any]) -> Task:
    """Returns the task that `Task.to_json` wrote.

    Raises:
        KeyError: If there is no such kind.
        TypeError: If a field is unknown or missing.
    """
    return TASKS[values["kind"]](**read_names(values))
