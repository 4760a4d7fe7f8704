"""The match of a config and a task: its loss, label smoothing, class weights and score of the best epoch."""

from transfer_jax.config import TrainConfig
from transfer_jax.config.loss_field import loss_function
from transfer_jax.data import ImageDataset
from transfer_jax.training.kept_epoch import keep_metric


def check_task_options(config: TrainConfig, train: ImageDataset) -> None:
    """Checks the fields of a config that depend on the task, before anything is trained.

    Args:
        config: The config.
        train: The training images.

    Raises:
        ValueError: If the task has no such loss, class weights or score, or no label smoothing.
    """
    task = train.task
    if isinstance(config.loss, str):  # Functions are checked where they are used.
        loss_function(config.loss, task)
    task.check_smoothing(config.label_smoothing)
    task.class_weights(train.labels, config.class_weights)
    keep_metric(config, task)
